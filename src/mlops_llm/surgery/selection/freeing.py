"""What deleting checkpoints frees, and which of them must stay."""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.models import adapter
from mlops_llm.tracking import forgetting, ledger
from mlops_llm.tracking.ledger import CheckpointRow
from mlops_llm.tracking.store import Store, local_path


@dataclass(frozen=True)
class Fate:
    """What becomes of a checkpoint that was not chosen."""

    row: CheckpointRow
    kept: str
    """Why it stays; empty of one that may go."""
    folders: tuple[Path, ...]
    """Where its files lie: in the record and, as the training left them, in the run's folder."""
    bytes: int
    """What deleting it alone frees."""


@dataclass(frozen=True)
class Freeing:
    """The plan."""

    fates: tuple[Fate, ...]
    bytes: int
    """What is free afterwards: of content that several names share only what loses its last one."""

    @property
    def going(self) -> list[Fate]:
        """Those that may go."""
        return [each for each in self.fates if not each.kept]


def freeing(store: Store, rows: Sequence[CheckpointRow], chosen: str) -> Freeing:
    """Plan what can go besides the chosen one.

    Args:
        store: the record.
        rows: the checkpoints of a run.
        chosen: name of the one that stays.
    """
    needed = beneath_adapters(store) | forgetting.needed_by_registry(store)
    fates = []
    for row in rows:
        if row.name == chosen or row.tags.get("checkpoint.files") == ledger.REMOVED:
            continue
        folders = _folders(row)
        why = needed.get(row.id) or needed.get(row.tags.get("digest.weights", ""), "")
        kept = _kept(store, row, why, folders)
        fates.append(Fate(row, kept, folders, freed(folders)))
    going = [folder for each in fates if not each.kept for folder in each.folders]
    return Freeing(tuple(fates), freed(going))


def beneath_adapters(store: Store) -> dict[str, str]:
    """What adapters lie on, at any depth: without it they are no models any more.

    Returns:
        LoggedModel id, or digest of the weights where an adapter knows only the folder of its base -> which adapter.
    """
    found: dict[str, str] = {}
    for row in ledger.maybe_adapters(store):
        is_reference = row.tags.get("checkpoint.storage") == "reference"
        folder = local_path(row.tags["checkpoint.uri"] if is_reference else row.location)
        told = adapter.read_origin(folder) if folder and folder.is_dir() else {}
        while told:
            base, said = str(told.get("base", "")), f"the adapter {row.name}{f' of {row.run}' if row.run else ''} lies on it"
            is_checkpoint = base.startswith("models:/m-")
            found.setdefault(base.removeprefix("models:/") if is_checkpoint else str(told.get("base.digest", base)), said)
            told = told.get("base.of") or {}
    return found


def _kept(store: Store, row: CheckpointRow, needed: str, folders: Collection[Path]) -> str:
    if needed:
        return needed
    if ledger.is_registered(store, row.id):
        return "a version in the registry is made of it"
    if row.tags.get("checkpoint.storage") == "upload":
        return "the server keeps its own copy"
    return "" if folders else "its files are not on this machine"


def _folders(row: CheckpointRow) -> tuple[Path, ...]:
    """In the record, and what the training wrote, where that is on this machine."""
    written, host = row.tags.get("checkpoint.uri"), row.tags.get("checkpoint.host")
    is_here = bool(written) and host in (None, socket.gethostname())
    own = local_path(str(written)) if is_here else None
    places = (local_path(row.location), own if own is not None and own.name == row.name else None)
    return tuple(dict.fromkeys(each.resolve() for each in places if each is not None and each.is_dir()))


def freed(folders: Iterable[Path]) -> int:
    """Bytes that are free once these folders are deleted: content counts when all of its names are in them."""
    names, links, sizes = Counter[tuple[int, int]](), dict[tuple[int, int], int](), dict[tuple[int, int], int]()
    for file in _files(folders):
        found = file.stat()
        key = (found.st_dev, found.st_ino)
        names[key] += 1
        links[key], sizes[key] = found.st_nlink, found.st_size
    return sum(sizes[key] for key, count in names.items() if count >= links[key])


def _files(folders: Iterable[Path]) -> list[Path]:
    found = {file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()}
    return sorted(found)


def delete(store: Store, plan: Freeing) -> list[str]:
    """Delete what may go; return the names. A checkpoint that was registered meanwhile stays."""
    gone = []
    for each in plan.going:
        if not forgetting.forget(store, each.row.id):
            continue
        for folder in each.folders:
            shutil.rmtree(folder, ignore_errors=True)
        gone.append(each.row.name)
    return gone
