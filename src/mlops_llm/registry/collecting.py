"""The checkpoints of the record as a sweep sees them, and what becomes of those that go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.eval.recording import BESIDE, higher
from mlops_llm.files import contents
from mlops_llm.models import adapter
from mlops_llm.registry.sweeping import Content, Node, Stored, Sweep, protected
from mlops_llm.tracking import checkpoints, environment, forgetting, ledger, registered
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.lineage import PARENTS, checkpoint_ids, listed
from mlops_llm.tracking.store import Store

_COUNTED = ("eval/", "score/")
"""How numbers begin by which checkpoints of a run are compared."""


@dataclass(frozen=True)
class Collected:
    """All checkpoints whose files are on this machine."""

    nodes: tuple[Node, ...]
    stored: Mapping[Content, Stored]
    rows: Mapping[str, CheckpointRow]
    """Id -> checkpoint."""
    places: Mapping[str, tuple[Path, ...]]
    """Id -> folders of its files."""
    unread: Mapping[str, str]
    """Id -> what of its files cannot be read, and what to do; it stays, and so does all that it may lie on."""


def collected(store: Store) -> Collected:
    """Read what is there, and why some of it stays."""
    looked = [_looked(each) for each in checkpoints.everywhere(store) if each.tags.get("checkpoint.storage") != "upload"]
    looked = [one for one in looked if one.folders or one.unread]
    rows = [one.row for one in looked]
    unread = {one.row.id: one.unread for one in looked if one.unread}
    needed = forgetting.needed_by_registry(store)
    named = {each.checkpoint.id: each.ref for each in registered.versions(store) if each.checkpoint}
    runs = registered.runs(store, {each.run for each in rows})
    started = _started(store)
    by_weights = dict[str, list[str]]()
    for each in rows:
        by_weights.setdefault(each.tags.get("digest.weights", ""), []).append(each.id)
    stored, nodes = dict[Content, Stored](), list[Node]()
    for one in looked:
        row, held = one.row, contents(one.folders)
        stored |= {key: Stored(each.bytes, each.everywhere) for key, each in held.items()}
        kept = one.unread or needed.get(row.id, "") or _kept(row, runs.get(row.run), named, started)
        names = {key: each.names for key, each in held.items()}
        nodes.append(_node(one, runs.get(row.run), names, kept, by_weights))
    nodes = _careful(store, nodes, [one.row for one in looked if one.unread], by_weights)
    places = {one.row.id: one.folders for one in looked}
    return Collected(tuple(nodes), stored, {each.id: each for each in rows}, places, unread)


def carry_out(store: Store, plan: Sweep, run: str) -> list[str]:
    """Delete the files of what goes; return the names. Numbers and recipe stay, and the record says what was lost.

    The record is looked at again first: what somebody has begun to use since the plan was made stays.

    Args:
        store: the record.
        plan: what goes.
        run: name of the run that does it.
    """
    found, gone = collected(store), list[str]()
    kept = protected(found.nodes)
    for each in plan.going:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        tags = {"gc.run": run, "gc.time": now, "gc.lost": each.lost, "gc.bytes": str(each.freed)}
        name, row = f"{each.node.run}/{each.node.name}", found.rows.get(each.node.id)
        if row is None:
            console.warn(f"{name} is gone already")
        elif why := kept.get(each.node.id):
            console.warn(f"{name} stays, since meanwhile {why}")
        elif forgetting.delete(store, row, tags):
            gone.append(name)
        else:
            console.warn(f"{name} was registered meanwhile: it stays")
    return gone


@dataclass(frozen=True)
class _Looked:
    """A checkpoint's files."""

    row: CheckpointRow
    folders: tuple[Path, ...]
    beneath: tuple[str, ...] = ()
    """What they say that it lies on: ids, and digests of weights."""
    unread: str = ""


def _looked(row: CheckpointRow) -> _Looked:
    try:
        folders = forgetting.folders(row)
        return _Looked(row, folders, tuple(each for folder in folders for each in adapter.beneath(folder)))
    except UserError as error:
        return _Looked(row, forgetting.in_record(row), unread=str(error))


def _careful(
    store: Store, nodes: Sequence[Node], unread: Sequence[CheckpointRow], by_weights: Mapping[str, Sequence[str]]
) -> list[Node]:
    """Nodes of which those that cannot be read hold all that they may lie on, and stand for nothing that others lose.

    Where the record does not tell what one lies on, it may be any other, so that all of them stay.
    """
    found, why = {each.id: each for each in nodes}, ""
    for row in unread:
        one, beneath = found[row.id], forgetting.beneath(store, row)
        ids = [id for name in beneath.names for id in by_weights.get(name, [name])]
        found[row.id] = replace(one, rests_on=tuple(dict.fromkeys(ids)), numbers={}, weights="")
        if not beneath.is_all:
            why = f"{one.run}/{one.name} may lie on it: its own files cannot be read, and the record does not tell"
    broken = {each.id for each in unread}
    return [
        replace(each, kept=each.kept or why, rebuildable=each.rebuildable and not broken & {*each.made_of})
        for each in found.values()
    ]


def _node(
    looked: _Looked,
    run: RunRow | None,
    names: Mapping[Content, int],
    kept: str,
    by_weights: Mapping[str, Sequence[str]],
) -> Node:
    row = looked.row
    parents = checkpoint_ids(row.tags.get(PARENTS, "")) or checkpoint_ids(run.tags.get(PARENTS, "") if run else "")
    base = row.tags.get("parent") or (run.tags.get("base.checkpoint", "") if run else "")
    rests = dict.fromkeys(
        id for each in looked.beneath for id in ([each] if each.startswith("m-") else by_weights.get(each, ()))
    )
    numbers = {
        name: value if higher(name) else -value
        for name, value in row.own.items()
        if name.startswith(_COUNTED) and not name.endswith(BESIDE) and value == value and higher(name) is not None
    }
    made_of = tuple(dict.fromkeys([*parents, *([base] if base else [])]))
    rebuildable = bool(row.tags.get("operation")) and len(parents) == len(listed(row.tags.get(PARENTS, "")))
    of = run.name if run else row.run
    weights = row.tags.get("digest.weights", "")
    return Node(row.id, row.name, of, made_of, tuple(rests), numbers, rebuildable, names, weights, kept)


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
            ids = [
                run.tags.get("base.checkpoint", ""),
                *checkpoint_ids(run.tags.get(PARENTS, "")),
                *registered.used(store, run.id),
            ]
            found |= {each: f"the running {run.name} reads it" for each in ids if each}
    return found


def _runs(run: RunRow) -> bool:
    return run.status == "RUNNING" and environment.believed_alive(run.tags)
