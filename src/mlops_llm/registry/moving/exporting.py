"""Runs and what belongs to them, read from the record into an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.registry.moving.archive import seal, written
from mlops_llm.registry.moving.contents import ARTIFACTS, FILES, Contents
from mlops_llm.tracking import checkpoints, ledger, portable, registered
from mlops_llm.tracking.datasets import PREFIX
from mlops_llm.tracking.secrets import mask_address
from mlops_llm.tracking.store import Store

_OPEN = ("RUNNING", "SCHEDULED")


@dataclass(frozen=True)
class Exported:
    """What went into an archive."""

    contents: Contents
    manifest: dict[str, Any]
    without: tuple[str, ...]
    """Checkpoints whose files are not here: removed, unfinished or weights from elsewhere."""
    running: tuple[str, ...]
    """Runs that were left out since they are at work."""
    behind: tuple[str, ...]
    """Runs that these rest on and that were left out, since nobody asked for the past."""


def asked(store: Store, runs: Sequence[str], project: str) -> list[str]:
    """Ids of the runs that are named, or of a project.

    Raises:
        UserError: one is not there, is at work, or nothing is named.
    """
    if bool(runs) == bool(project):
        raise UserError(
            "neither or both of them are given", "op.runs, op.of", "name runs, op.runs=[A,B], or a project, op.of=NAME"
        )
    if project:
        found = ledger.of_project(store, project)
        if not found:
            raise UserError(f"there is no run in the project '{project}'", "op.of", "name another")
        return [each.id for each in found]
    rows = [ledger.find_run(store, each) for each in runs]
    for row in rows:
        if row.status in _OPEN:
            raise UserError(f"run '{row.name}' is {row.status.lower()}", "op.runs", "wait for its end, or stop it")
    return [row.id for row in rows]


def export(store: Store, first: Sequence[str], out: Path, past: bool, versions: bool) -> Exported:
    """Write an archive.

    Args:
        store: the record.
        first: ids of runs.
        out: a folder, or a file that ends in `.tar`.
        past: also what they rest on, see `portable.wanted_runs`.
        versions: also the versions of registered models that are made of their checkpoints.
    """
    wanted = portable.wanted_runs(store, first, past)
    left = [] if past else portable.wanted_runs(store, first, past=True)
    behind = tuple(row.name for each, row in registered.runs(store, left).items() if each not in wanted)
    runs = [portable.run(store, each) for each in wanted]
    running = tuple(each.name for each in runs if each.status in _OPEN)
    runs = [each for each in runs if each.status not in _OPEN]
    models = dict.fromkeys(model for run in runs for model in (*(each for each, _ in run.makes), *run.uses))
    models |= dict.fromkeys(row.id for run in runs for row in checkpoints.of_run(store, run.id))
    taken = [portable.checkpoint(store, each) for each in models]
    there = {run.id for run in runs}
    taken = [each for each in taken if not each.run or each.run in there]
    without, weights = list[str](), dict[str, str]()
    with written(out) as folder:
        bar = console.Progress("export", len(runs) + len(taken))
        for number, run in enumerate(runs, 1):
            portable.artifacts_into(store, run.id, folder / ARTIFACTS / run.id)
            bar.at(number, run.name)
        for number, each in enumerate(taken, len(runs) + 1):
            files = folder / FILES / each.id
            if portable.files_into(store, checkpoints.by_id(store, each.id), files):
                if list(files.glob("*.safetensors")):
                    weights[each.id] = _weights(files, each)
            else:
                without.append(each.name)
            bar.at(number, each.name)
        bar.close()
        kept = {each.id for each in taken}
        named = portable.models(store, kept) if versions else []
        sets = [portable.dataset(store, each) for each in {run.experiment: None for run in runs} if each.startswith(PREFIX)]
        contents = Contents(tuple(runs), tuple(taken), tuple(named), tuple(sets), weights)
        manifest = seal(folder, contents, mask_address(store.address))
    return Exported(contents, manifest, tuple(without), running, behind)


def _weights(files: Path, told: portable.PortableCheckpoint) -> str:
    """Digest of a checkpoint's weights, which is the one that the record has.

    Raises:
        UserError: the files were altered since.
    """
    found, known = digest.weights(files), told.tags.get("digest.weights", "")
    if known and found != known:
        what = f"the weights of {told.name} ({told.id}) are not those that were recorded"
        raise UserError(what, remedy="op=doctor tells which; export other runs")
    return found
