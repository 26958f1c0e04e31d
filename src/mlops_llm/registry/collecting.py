"""The checkpoints of the record as a sweep sees them, and what becomes of those that go."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_llm import console
from mlops_llm.models import adapter
from mlops_llm.registry.sweeping import Content, Node, Stored, Sweep
from mlops_llm.tracking import environment, forgetting, ledger, registered
from mlops_llm.tracking.ledger import CheckpointRow, RunRow
from mlops_llm.tracking.lineage import PARENTS
from mlops_llm.tracking.store import Store, local_path

_LOWER = ("loss", "perplexity", "bits_per_byte", "entropy")
_BESIDE = ("_low", "_high", "_unseen")
_COUNTED = ("eval/", "score/")
"""How numbers begin by which checkpoints of a run are compared."""


@dataclass(frozen=True)
class Collected:
    """All checkpoints whose files are on this machine."""

    nodes: tuple[Node, ...]
    stored: Mapping[Content, Stored]
    folders: Mapping[str, tuple[Path, ...]]
    """Id -> where its files are."""


def collected(store: Store) -> Collected:
    """Read what is there, and why some of it stays."""
    rows = [each for each in ledger.everywhere(store) if each.tags.get("checkpoint.storage") != "upload"]
    places = {each.id: _folders(each) for each in rows}
    rows = [each for each in rows if places[each.id]]
    needed = forgetting.needed_by_registry(store)
    named = {each.checkpoint.id: each.ref for each in registered.versions(store) if each.checkpoint}
    runs = registered.runs(store, {each.run for each in rows})
    started = _started(store)
    by_weights = {each.tags.get("digest.weights", ""): each.id for each in rows}
    stored, nodes = dict[Content, Stored](), list[Node]()
    for row in rows:
        contents = dict[Content, int]()
        for file in _files(places[row.id]):
            found = file.stat()
            key = (found.st_dev, found.st_ino)
            contents[key] = contents.get(key, 0) + 1
            stored[key] = Stored(found.st_size, found.st_nlink)
        kept = needed.get(row.id, "") or _kept(row, runs.get(row.run), named, started)
        nodes.append(_node(row, runs.get(row.run), places[row.id], contents, kept, by_weights))
    return Collected(tuple(nodes), stored, places)


def carry_out(store: Store, found: Collected, plan: Sweep, run: str) -> list[str]:
    """Delete the files of what goes; return the names. Numbers and recipe stay, and the record says what was lost.

    Args:
        store: the record.
        found: what is there.
        plan: what goes.
        run: name of the run that does it.
    """
    gone = list[str]()
    for each in plan.going:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if not forgetting.forget(store, each.node.id):
            console.warn(f"{each.node.run}/{each.node.name} was registered meanwhile: it stays")
            continue
        tags = {"gc.run": run, "gc.time": now, "gc.lost": each.lost, "gc.bytes": str(each.freed)}
        store.client.set_logged_model_tags(each.node.id, tags)
        for folder in found.folders[each.node.id]:
            shutil.rmtree(folder, ignore_errors=True)
        gone.append(f"{each.node.run}/{each.node.name}")
    return gone


def _node(
    row: CheckpointRow,
    run: RunRow | None,
    folders: Sequence[Path],
    contents: Mapping[Content, int],
    kept: str,
    by_weights: Mapping[str, str],
) -> Node:
    parents = _ids(row.tags.get(PARENTS, "")) or _ids(run.tags.get(PARENTS, "") if run else "")
    base = row.tags.get("parent") or (run.tags.get("base.checkpoint", "") if run else "")
    rests = dict.fromkeys(each for folder in folders for each in _beneath(folder, by_weights))
    numbers = {
        name: -value if name.endswith(_LOWER) else value
        for name, value in row.own.items()
        if name.startswith(_COUNTED) and not name.endswith(_BESIDE) and value == value
    }
    made_of = tuple(dict.fromkeys([*parents, *([base] if base else [])]))
    rebuildable = bool(row.tags.get("operation")) and len(parents) == len(_listed(row.tags.get(PARENTS, "")))
    name = run.name if run else row.run
    return Node(row.id, row.name, name, made_of, tuple(rests), numbers, rebuildable, contents, kept)


def _kept(row: CheckpointRow, run: RunRow | None, named: Mapping[str, str], started: Mapping[str, str]) -> str:
    if row.id in named:
        return f"{named[row.id]} is made of it"
    if row.tags.get("checkpoint.origin"):
        return "comes from elsewhere"
    if run and _runs(run):
        return f"run {run.name} is running"
    return started.get(row.id, "")


def _started(store: Store) -> dict[str, str]:
    """Checkpoint -> the running run that started from it, or reads it."""
    found = dict[str, str]()
    for run in ledger.running(store, {}):
        if _runs(run):
            ids = [run.tags.get("base.checkpoint", ""), *_ids(run.tags.get(PARENTS, "")), *registered.used(store, run.id)]
            found |= {each: f"the running {run.name} reads it" for each in ids if each}
    return found


def _runs(run: RunRow) -> bool:
    return run.status == "RUNNING" and environment.believed_alive(run.tags)


def _beneath(folder: Path, by_weights: Mapping[str, str]) -> list[str]:
    """Ids of what an adapter lies on, at any depth."""
    told, found = adapter.read_origin(folder), list[str]()
    while told:
        base = str(told.get("base", "")).removeprefix("models:/")
        found.append(base if base.startswith("m-") else by_weights.get(str(told.get("base.digest", "")), ""))
        told = told.get("base.of") or {}
    return [each for each in found if each]


def _listed(text: str) -> list[str]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [str(each) for each in found] if isinstance(found, list) else []


def _ids(text: str) -> list[str]:
    found = (re.fullmatch(r"(?:models:/)?(m-[0-9a-f]{32})", each) for each in _listed(text))
    return [each[1] for each in found if each]


def _folders(row: CheckpointRow) -> tuple[Path, ...]:
    """In the record, and what the run wrote, where that is on this machine."""
    written, host = row.tags.get("checkpoint.uri"), row.tags.get("checkpoint.host")
    own = local_path(written) if written and host in (None, socket.gethostname()) else None
    places = (local_path(row.location), own if own is not None and own.name == row.name else None)
    return tuple(dict.fromkeys(each.resolve() for each in places if each is not None and each.is_dir()))


def _files(folders: Sequence[Path]) -> list[Path]:
    return sorted({each for folder in folders for each in folder.rglob("*") if each.is_file() and not each.is_symlink()})
