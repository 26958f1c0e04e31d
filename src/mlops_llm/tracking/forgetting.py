"""Checkpoints whose files are dropped while their numbers stay, and those that may not be."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import read_object
from mlops_llm.tracking import checkpoints, ledger, registered
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.lineage import PARENTS, ancestors, checkpoint_ids, listed
from mlops_llm.tracking.store import Store, is_away, local_path

T = TypeVar("T")
_MARKS = {".complete.json": ("tags", "digest.weights"), "recipe.json": ("digest.weights",)}
"""What a training and an operation leave beside the weights, and where their digest stands in it."""
_ENDINGS = (".safetensors", ".gguf", ".bin", ".json", ".jinja", ".model", ".tiktoken", ".txt", ".md", ".pt", ".pth")
_STATE = ("merges.txt", "latest")
"""What a folder without such a mark may hold, and nothing else, to be taken for a checkpoint if its weights are those."""


def folders(row: CheckpointRow) -> tuple[Path, ...]:
    """Where a checkpoint's files are: in the record and, as the training left them, in the run's folder on this machine.

    Raises:
        UserError: what marks the run's folder as the checkpoint's cannot be read.
    """
    written, host = row.tags.get("checkpoint.uri"), row.tags.get("checkpoint.host")
    own = local_path(written) if written and host in (None, socket.gethostname()) else None
    return _there(local_path(row.location), own if own is not None and _is_left(own, row) else None)


def in_record(row: CheckpointRow) -> tuple[Path, ...]:
    """Where a checkpoint's files are in the record, on this machine."""
    return _there(local_path(row.location))


def _there(*places: Path | None) -> tuple[Path, ...]:
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
        file.unlink(missing_ok=True)
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


@dataclass(frozen=True)
class Beneath:
    """What a checkpoint may lie on, by the record alone."""

    names: frozenset[str]
    """Ids of checkpoints, and digests of other weights."""
    is_all: bool
    """False where the record does not tell all of it."""


def beneath(store: Store, row: CheckpointRow) -> Beneath:
    """What a checkpoint was made of, back to whole models, where its own files do not tell what it lies on."""
    names, waiting, met, is_all = set[str](), [row], {row.id}, True
    while waiting:
        here = waiting.pop()
        if here.peft == checkpoints.WHOLE or (here is not row and _is_whole(here)):
            continue
        run = _known(partial(ledger.find_run, store, here.run)) if here.run else None
        tags = {**(run.tags if run else {}), **here.tags}
        ids = _made_of(tags)
        names |= set(ids)
        if (weights := tags.get("digest.base")) and not tags.get("base.adapter") and not tags.get(PARENTS):
            names.add(weights)  # a whole model lies on nothing
            continue
        found = [_known(partial(checkpoints.by_id, store, each)) for each in ids]
        further = [each for each in found if each is not None]
        is_all &= bool(ids) and len(further) == len(found)
        names |= {each.id for each in further}  # an imported one had another id before
        waiting += [each for each in further if each.id not in met]
        met |= {each.id for each in further}
    return Beneath(frozenset(names), is_all)


def _made_of(tags: Mapping[str, str]) -> list[str]:
    """Ids of the checkpoints that one was made of; none where the record does not name each of them."""
    parents, ids = listed(tags.get(PARENTS, "")), checkpoint_ids(tags.get(PARENTS, ""))
    if parents:
        return ids if len(ids) == len(parents) else []
    base = tags.get("parent") or tags.get("base.checkpoint")
    return [base] if base else []


def _is_whole(row: CheckpointRow) -> bool:
    """Whether the files of a checkpoint are there and are no adapter's."""
    names = {each.name for folder in in_record(row) for each in folder.iterdir()}
    return "config.json" in names and not names & {"adapter_config.json", "mlops_llm.json"}


def _known(ask: Callable[[], T]) -> T | None:
    """What the record answers; None where it knows nothing of it."""
    try:
        return ask()
    except UserError as error:
        if is_away(error):
            raise
        return None
