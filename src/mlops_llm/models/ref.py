"""How a person names a model, and the place it stands for.

`tiny`, `smollm2`; `models:/sales@champion`, `models:/sales/3`, `models:/m-…`; `runs:/<id or unique name>/checkpoint-100`
(also `/best`, `/last`, and `/checkpoint-100-ema` for averaged weights); a folder; a hub id such as `Qwen/Qwen2.5-0.5B`. Each
with `@<digest>` behind it is the same as long as its weights are those, and else refused where they are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.files import expanded

EMBEDDED = ("tiny", "smollm2")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PIN = re.compile(r"(.+)@([0-9a-f]{64})")


@dataclass(frozen=True)
class Place:
    """Where a model's files are, and what the record knows of it."""

    ref: str
    """What was asked for."""
    folder: Path
    checkpoint: str = ""
    """LoggedModel id, when the record holds it."""
    run: str = ""
    """Run that made it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    """What the record calls it: `checkpoint-100`."""
    step: int = 0
    """Optimizer steps behind it, as far as the record knows."""


def check_registered(name: str, where: str) -> None:
    """See that a model can be registered under a name.

    Raises:
        UserError: it cannot.
    """
    if not name.strip() or "/" in name or ":" in name:
        raise UserError(f"is '{name}', which names no registered model", where, "give a name without / and :")


def resolve(ref: str) -> Place:
    """Find what a ref stands for.

    Raises:
        UserError: nothing stands behind it; what there is nearby is named.
    """
    if not ref.strip():
        raise UserError("names no model", "model", "give one: tiny, smollm2, a folder, a hub id, models:/… or runs:/…")
    if found := _PIN.fullmatch(ref):
        return _pinned(resolve(found[1]), found[2])
    if ref == "tiny":
        from mlops_llm.models import tiny

        return Place(ref, tiny.folder())
    if ref == "smollm2":
        from mlops_llm.models import smollm2

        return Place(ref, smollm2.folder())
    if ref.startswith(("models:/", "runs:/")):
        return _recorded(ref)
    folder = expanded(ref)
    if folder.is_dir():
        return Place(ref, folder.absolute())
    if folder.is_file():
        raise UserError("is a file, not a model folder", ref, "name the folder that holds config.json and the weights")
    if ref.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(ref):
        raise UserError("there is no such model folder", ref, "check the path")
    return Place(ref, _from_hub(ref))


def remembered(ref: str) -> Place:
    """The same for who asks about a model and not for it: where the record knows it, its files may be gone or far away.

    Raises:
        UserError: see `resolve`.
    """
    return _recorded(ref, files=False) if ref.startswith(("models:/", "runs:/")) and not _PIN.fullmatch(ref) else resolve(ref)


def pinned(ref: str, weights: str) -> str:
    """A ref that only means these weights: with their digest, unless the record knows it.

    Args:
        ref: of a model.
        weights: digest of its own weights.
    """
    return ref if re.fullmatch(r"models:/m-[0-9a-f]{32}", ref) else f"{unpinned(ref)}@{weights}"


def unpinned(ref: str) -> str:
    """A ref without the digest behind it."""
    found = _PIN.fullmatch(ref)
    return found[1] if found else ref


def _pinned(place: Place, weights: str) -> Place:
    recorded = place.tags.get("digest.weights", weights)
    if recorded != weights:
        what = f"its weights are others now (digest {recorded[:12]}…, wanted {weights[:12]}…)"
        raise UserError(what, place.ref, "name the checkpoint that has them")
    return replace(place, tags={**place.tags, "digest.weights": weights})


def _recorded(ref: str, *, files: bool = True) -> Place:
    from mlops_llm.tracking import checkpoints, refs
    from mlops_llm.tracking.store import connect

    store = connect()
    row = refs.checkpoint(store, ref)
    folder = checkpoints.place_of(store, row) if files else Path()
    return Place(ref, folder, row.id, row.run, row.tags, row.name, row.step)


def _from_hub(ref: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    hint = near(ref, EMBEDDED)
    try:
        return Path(snapshot_download(ref, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except GatedRepoError as error:
        raise UserError("the hub asks for permission for this model", ref, "log in with: hf auth login") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"neither a folder here nor a model on the hub{hint}", ref) from error
    except Exception as error:
        raise UserError(
            f"no such folder here, not in the local hub cache, and the hub cannot be reached{hint}",
            ref,
            "check the name, the network, or HF_HUB_OFFLINE",
        ) from error
