"""What deleting checkpoints frees, and which of them must stay."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.files import contents
from mlops_llm.models import adapter
from mlops_llm.tracking import checkpoints, forgetting, ledger
from mlops_llm.tracking.checkpoints import CheckpointRow
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
        if row.name == chosen or row.tags.get("checkpoint.files") == checkpoints.REMOVED:
            continue
        folders = forgetting.folders(row)
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
    for row in checkpoints.maybe_adapters(store):
        is_reference = row.tags.get("checkpoint.storage") == "reference"
        folder = local_path(row.tags["checkpoint.uri"] if is_reference else row.location)
        said = f"the adapter {row.name}{f' of {row.run}' if row.run else ''} lies on it"
        for base in adapter.beneath(folder) if folder and folder.is_dir() else ():
            found.setdefault(base, said)
    return found


def _kept(store: Store, row: CheckpointRow, needed: str, folders: Collection[Path]) -> str:
    if needed:
        return needed
    if ledger.is_registered(store, row.id):
        return "a version in the registry is made of it"
    if row.tags.get("checkpoint.storage") == "upload":
        return "the server keeps its own copy"
    return "" if folders else "its files are not on this machine"


def freed(folders: Iterable[Path]) -> int:
    """Bytes that are free once these folders are deleted: content counts when all of its names are in them."""
    return sum(each.bytes for each in contents(folders).values() if each.names >= each.everywhere)


def delete(store: Store, plan: Freeing) -> list[str]:
    """Delete what may go; return the names. A checkpoint that was registered meanwhile stays."""
    gone = []
    for each in plan.going:
        if forgetting.delete(store, each.row):
            gone.append(each.row.name)
    return gone
