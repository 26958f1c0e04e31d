"""Files that somebody made to run code, to fill the memory, or to reach what they should not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from mlops_llm.models import tiny


class Exploding:
    """A pickled one makes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        """Say which."""
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """What pickle calls."""
        return os.system, (f"touch '{self._marker}'",)


def pickled(file: Path, marker: Path, *, torchs: bool) -> None:
    """Write a pickled file that explodes, bare or in torch's zip."""
    if torchs:
        torch.save({"weight": Exploding(marker)}, file)
    else:
        file.write_bytes(pickle.dumps({"weight": Exploding(marker)}))


def folder(place: Path, **config: Any) -> Path:
    """A copy of `tiny` with other settings."""
    shutil.copytree(tiny.folder(), place)
    told = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(told | config))
    return place


def code(marker: Path, ran: str = "ran") -> str:
    """A module of a model's own, which is Qwen2 by another name; it makes a file when it is imported."""
    return (
        f"open({str(marker)!r}, 'w').write({ran!r})\n"
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "class OwnConfig(Qwen2Config):\n    model_type = 'own'\n"
        "class OwnForCausalLM(Qwen2ForCausalLM):\n    config_class = OwnConfig\n"
    )


AUTO = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}


def with_code(place: Path, marker: Path) -> Path:
    """A model that cannot be loaded without code of its own."""
    folder(place, model_type="own", auto_map=AUTO, architectures=["OwnForCausalLM"])
    (place / "modeling_own.py").write_text(code(marker))
    return place
