"""Which version of a registered model is the champion: moved as one step that another process can complete.

MLflow moves one alias at a time. So what is to be done is written down first, in the tag `JOURNAL` of the registered model,
then done, then crossed out: whoever finds a tag whose writer is dead does it (again), which changes nothing that was done
already. `previous` moves first, so that there is a champion at every moment. Each move stands in a tag of its own, for ever.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

from mlops_llm import console
from mlops_llm.tracking import environment, ledger, registered
from mlops_llm.tracking.refusals import is_denied
from mlops_llm.tracking.registered import CHAMPION, PREVIOUS
from mlops_llm.tracking.store import Store
from mlops_llm.tracking.turns import turn

JOURNAL = "registry.journal"
HISTORY = "registry.history."
"""How tags of a registered model begin that hold one move each."""
LONGEST_REASON = 2000
PROMOTE, FORCE, ROLLBACK = "promote", "force", "rollback"


@dataclass(frozen=True)
class Move:
    """One change of the champion."""

    number: int
    """From 1."""
    kind: str
    """`promote`, `force` or `rollback`."""
    version: int
    """The champion from then on."""
    before: int | None
    """The champion until then."""
    previous: int | None
    """Where a rollback leads from then on."""
    run: str
    """Name of the run that did it."""
    run_id: str
    by: str
    """User."""
    time: str
    """ISO 8601, UTC."""
    reason: str


def history(tags: Mapping[str, str]) -> list[Move]:
    """The moves that a registered model's tags tell, oldest first."""
    found = [Move(**json.loads(text)) for key, text in tags.items() if key.startswith(HISTORY)]
    return sorted(found, key=lambda each: each.number)


def is_move(text: str) -> bool:
    """Whether a text is a move, as the record holds one."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return False
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "str": (str,), "int | None": (int, type(None))}
    wanted = {each.name: kinds[str(each.type)] for each in fields(Move)}
    return isinstance(told, dict) and told.keys() == wanted.keys() and all(type(told[name]) in wanted[name] for name in wanted)


def pending(tags: Mapping[str, str]) -> Move | None:
    """A move that was begun and is not at its end."""
    text = tags.get(JOURNAL)
    return Move(**json.loads(text)) if text else None


def reign(moves: Sequence[Move]) -> list[int]:
    """Versions to which rollbacks lead one after the other, the champion last: a rollback takes back what came after."""
    stack = list[int]()
    for each in moves:
        if each.before is not None and (not stack or stack[-1] != each.before):
            stack.append(each.before)  # somebody moved the alias by hand
        if each.kind == ROLLBACK and each.version in stack:
            while stack[-1] != each.version:
                stack.pop()
        else:
            stack.append(each.version)
    return stack


def beneath(moves: Sequence[Move], now: int, there: Collection[int]) -> list[int]:
    """Versions to which rollbacks lead from a champion, the next one last.

    Args:
        moves: the history.
        now: the champion.
        there: versions that were not deleted.
    """
    stack = [each for each in reign(moves) if each in there or each == now]
    if now in stack:
        stack = stack[: len(stack) - stack[::-1].index(now)]  # of a champion that came back, its last time counts
    while stack and stack[-1] == now:
        stack.pop()
    return stack


def move(
    store: Store, name: str, version: int, kind: str, run: str, reason: str, begun: Callable[[], None] = lambda: None
) -> Move:
    """Make a version the champion; for a caller whose `turn` it is, see `turn_of`.

    Args:
        store: the record.
        name: of the registered model.
        version: that becomes the champion.
        kind: `promote`, `force` or `rollback`.
        run: name of the run that does it.
        reason: for a person.
        begun: called as soon as the move is written down: whatever happens from then on, it is made.
    """
    row = registered.model(store, name)
    told, before = history(row.tags), row.aliases.get(CHAMPION)
    entry = Move(
        1 + max((each.number for each in told), default=0),
        kind,
        version,
        before,
        before,
        run,
        ledger.find_run(store, run).id,
        getpass.getuser(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        reason[:LONGEST_REASON],
    )
    if kind == ROLLBACK:
        below = beneath([*told, entry], version, known_versions(store, name))
        entry = replace(entry, previous=below[-1] if below else None)
    store.client.set_registered_model_tag(name, JOURNAL, json.dumps(asdict(entry), ensure_ascii=False))
    begun()
    _carry_out(store, name, entry)
    return entry


def known_versions(store: Store, name: str) -> set[int]:
    """Numbers of the versions that are there."""
    return {int(each.version) for each in store.client.search_model_versions(f"name = '{name}'")}


def _carry_out(store: Store, name: str, entry: Move) -> None:
    """Do what the journal says, from the beginning; what is done already stays as it is."""
    client, there = store.client, known_versions(store, name)
    if entry.version in there:
        if entry.previous is not None and entry.previous in there:
            client.set_registered_model_alias(name, PREVIOUS, str(entry.previous))
        else:
            client.delete_registered_model_alias(name, PREVIOUS)
        client.set_registered_model_alias(name, CHAMPION, str(entry.version))
        told = {"at": entry.time, "by": entry.by, "from": entry.before, "kind": entry.kind, "run": entry.run}
        for key, value in told.items():
            client.set_model_version_tag(name, str(entry.version), f"champion.{key}", "" if value is None else str(value))
        text = json.dumps(asdict(entry), ensure_ascii=False)
        client.set_registered_model_tag(name, f"{HISTORY}{entry.number:06d}", text)
    else:
        console.warn(f"{name}: version {entry.version} was deleted while it became the champion; the aliases stay")
    client.delete_registered_model_tag(name, JOURNAL)


@contextmanager
def turn_of(store: Store, run: str, name: str) -> Iterator[Move | None]:
    """See that nobody else moves the champion of a registered model in the block; complete first what a dead process left.

    Args:
        store: the record.
        run: id of a run of this process.
        name: of the registered model.

    Yields:
        The move that was completed, if there was one.
    """
    with turn(store, run, f"champion of {name}"):
        yield _completed(store, name)


def _completed(store: Store, name: str) -> Move | None:
    left = pending(registered.model(store, name).tags)
    if left:
        _carry_out(store, name, left)
        console.warn(f"{name}: the {left.kind} of version {left.version} by {left.run}, which was cut off, is completed")
    return left


def complete(store: Store, run: str) -> list[str]:
    """Complete what dead processes began, in every registered model; return the models' names.

    Args:
        store: the record.
        run: id of a run of this process.
    """
    done = list[str]()
    for each in store.client.search_registered_models(f"tags.`{JOURNAL}` LIKE '%'"):
        left = pending(each.tags)
        if left and not is_at_work(store, left):
            try:
                with turn_of(store, run, each.name) as completed:
                    done += [each.name] if completed else []
            except Exception as error:
                if not is_denied(error):
                    raise
                console.warn(f"{each.name}: a {left.kind} that was cut off waits for somebody who may complete it")
    return done


def is_at_work(store: Store, entry: Move) -> bool:
    """Whether the process that began a move is still there to end it."""
    rows = [each for each in ledger.named(store, entry.run) if each.id == entry.run_id]
    return any(each.status == "RUNNING" and environment.believed_alive(each.tags) for each in rows)
