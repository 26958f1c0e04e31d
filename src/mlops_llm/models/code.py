"""Python code that lies with a model, which `auto_map` of its config.json names: run only where the user says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import read_object
from mlops_llm.models import adapter
from mlops_llm.models.ref import Place

TAG = "digest.code"
"""Tag of a checkpoint that runs code of its own: the digest of that code."""
_ELSEWHERE = "--"
"""Parts the repository of the code from its name, where it lies in another one."""


def trusted(place: Place, config: Mapping[str, Any], trust: bool) -> str:
    """The digest of the code that is run when a model is loaded; empty where none is.

    A tokenizer's own code is never run: all it has to be is in tokenizer.json.

    Args:
        place: of the model.
        config: its config.json.
        trust: the user lets it run; what transformers knows itself is loaded without, whatever lies there.

    Raises:
        UserError: it cannot be loaded without, and is not trusted; or the code is not in the folder.
    """
    if not needs(config):
        return ""
    modules = _modules(config)
    shown = ", ".join(modules)
    if not trust:
        what = f"is loaded by Python code of its own ({shown}), which is not run"
        raise UserError(what, place.ref, "read it, and if you trust it: model_load.trust_remote_code=true")
    away = next((each for each in modules if not (place.folder / each).is_file()), None)
    if away is not None:
        what = "lies in another repository" if _ELSEWHERE in away else "is missing"
        raise UserError(f"its code {away} {what}", place.ref, "copy the code into the model's folder, where it can be read")
    return of(place.folder)


def needs(config: Mapping[str, Any]) -> bool:
    """Whether a model cannot be loaded without code of its own."""
    if not _modules(config):
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return str(config.get("model_type")) not in CONFIG_MAPPING_NAMES


def of(folder: Path) -> str:
    """The digest of all Python code in a folder."""
    return digest.text("\n".join(f"{file.name} {digest.raw(file)}" for file in sorted(folder.glob("*.py"))))


def of_model(folder: Path) -> str:
    """The digest of the Python code that a model is loaded by, of an adapter that of what it lies on; empty where none is.

    Weights are not read.

    Raises:
        UserError: a config cannot be read, or the base of an adapter is gone.
    """
    met = {folder}
    while (folder / adapter.CONFIG).is_file():
        folder = adapter.base_of(folder, read_object(folder / adapter.CONFIG)).folder
        if folder in met:
            raise UserError("the adapter lies on itself", str(folder), "mend base_model_name_or_path")
        met.add(folder)
    config = folder / "config.json"
    return of(folder) if config.is_file() and needs(read_object(config)) else ""


def _modules(config: Mapping[str, Any]) -> list[str]:
    """The files that `auto_map` names."""
    named = config.get("auto_map")
    classes = [str(each) for each in named.values() if each] if isinstance(named, Mapping) else []
    return sorted({f"{each.rpartition('.')[0]}.py" for each in classes})


def refuse(found: str, ref: str) -> None:
    """See that a model runs no code of its own, where others are to rely on it.

    Args:
        found: digest of its code, or empty.
        ref: the model.

    Raises:
        UserError: it does.
    """
    if found:
        what = "runs Python code of its own, and such a model is neither deployed nor served"
        raise UserError(what, ref, "take one of an architecture that transformers knows")
