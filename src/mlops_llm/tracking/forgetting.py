"""Checkpoints whose files are dropped while their numbers stay, and those that may not be."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import read_object
from mlops_llm.tracking import checkpoints, ledger, registered
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.lineage import ancestors
from mlops_llm.tracking.store import Store, is_away, local_path

T = TypeVar("T")
_MARKS = {".complete.json": ("tags", "digest.weights"), "recipe.json": ("digest.weights",)}
"""What a training and an operation leave beside the weights, and where their digest stands in it."""
_ENDINGS = (".safetensors", ".gguf", ".bin", ".json", ".jinja", ".model", ".tiktoken", ".txt", ".md", ".pt", ".pth")
_STATE = ("merges.txt", "latest")
"""What a folder without such a mark may hold, and nothing else, to be taken for a checkpoint if its weights are those."""


def folders(row: CheckpointRow) -> tuple[Path, ...]:
    """Where a checkpoint's files are: in the record and, as the training left them, in the run's folder on this machine."""
    written, host = row.tags.get("checkpoint.uri"), row.tags.get("checkpoint.host")
    own = local_path(written) if written and host in (None, socket.gethostname()) else None
    places = (local_path(row.location), own if own is not None and _is_left(own, row) else None)
    return tuple(dict.fromkeys(each.resolve() for each in places if each is not None and each.is_dir()))


def _is_left(folder: Path, row: CheckpointRow) -> bool:
    """Whether a folder is what the record says: others write there too, and what is named so is deleted one day."""
    weights = row.tags.get("digest.weights")
    if folder.name != row.name or not weights:
        return False
    for name, path in _MARKS.items():
        if (folder / name).is_file():
            told: Any = read_object(folder / name)
            for key in path:
                told = told.get(key, {}) if isinstance(told, dict) else {}
            return bool(told == weights)
    found = list(folder.iterdir()) if folder.is_dir() else []
    plain = all(each.is_file() and (each.suffix in _ENDINGS or each.name in _STATE) for each in found)
    return plain and digest.is_of(folder, weights)


def delete(store: Store, row: CheckpointRow, tags: Mapping[str, str] | None = None) -> bool:
    """Delete a checkpoint's files wherever they are on this machine, as `forget` does in the record."""
    places = folders(row)
    if not forget(store, row.id, tags):
        return False
    for folder in places:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def forget(store: Store, model: str, tags: Mapping[str, str] | None = None) -> bool:
    """Remove a checkpoint's files from the record unless the registry names it; its numbers stay.

    It is marked before the first file goes, so that one that was cut off in between is not taken for whole.

    Args:
        store: the record.
        model: its LoggedModel id.
        tags: more that is said of it.

    Returns:
        Whether nothing of the record needs the files any more.
    """
    if ledger.is_registered(store, model):
        return False
    row = checkpoints.by_id(store, model)
    if row.tags.get("checkpoint.storage") == "upload":
        return True  # the server keeps its own copy
    store.client.set_logged_model_tags(model, {**(tags or {}), "checkpoint.files": checkpoints.REMOVED})
    place = local_path(row.location)
    for file in place.iterdir() if place and place.is_dir() else ():
        file.unlink()
    return True


def needed_by_registry(store: Store) -> dict[str, str]:
    """What the registry cannot do without.

    That is what an alias points to; what this one was made of, through all trainings and merges; and what any of them learned
    from. Of a version without an alias it is what it lies on, if it is an adapter: without that it is no model any more.

    Returns:
        LoggedModel id -> why it is needed, for a person.
    """
    found: dict[str, str] = {}
    versions = [(each, each.checkpoint) for each in registered.versions(store) if each.checkpoint]
    for each, row in versions:
        for alias in each.aliases:
            name = f"{each.model}@{alias}"
            for ancestor, role in ancestors(store, row.id).items():
                said = f"{name} learned from it, its {role}" if role else f"{name} was made of it"
                found.setdefault(ancestor, f"{name} points to it" if ancestor == row.id else said)
    for each, row in versions:
        for base in _beneath(store, row):
            found.setdefault(base, f"the adapter {each.model}/{each.version} lies on it")
    return found


def _beneath(store: Store, row: CheckpointRow) -> Iterator[str]:
    """What an adapter lies on, at any depth; nothing of a whole model."""
    met, here = {row.id}, row
    while here.run and here.peft != checkpoints.WHOLE and (run := _known(partial(ledger.find_run, store, here.run))):
        base = run.tags.get("base.checkpoint", "")
        if run.params.get("choice.peft", "none") == "none" or not base or base in met:
            return
        met.add(base)
        yield base
        found = _known(partial(checkpoints.by_id, store, base))
        if found is None:
            return
        here = found


def _known(ask: Callable[[], T]) -> T | None:
    """What the record answers; None where it knows nothing of it."""
    try:
        return ask()
    except UserError as error:
        if is_away(error):
            raise
        return None
