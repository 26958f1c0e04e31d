"""Who may change something of the record now, where several processes want to: one at a time, on a database as on a server.

MLflow has no lock, so that processes take numbers as customers in a bakery do (Lamport 1974, A New Solution of Dijkstra's
Concurrent Programming Problem): plain reads and writes of run tags are enough, and who died is passed over, since its run says
so. A process on another machine that hangs for longer than `environment.SILENCE` is taken for dead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlops_llm.errors import UserError
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.store import Store

_OF, _NUMBER = "turn.of", "turn.number"
_CHOOSING = "choosing"
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
PATIENCE = 600.0
"""Seconds that a process waits for those before it."""


@contextmanager
def turn(store: Store, run: str, what: str) -> Iterator[None]:
    """Wait until nobody else is at work on something; nobody is as long as the block lasts.

    Args:
        store: the record.
        run: id of this process's run, which the record has as running.
        what: name of what is to be changed.

    Raises:
        UserError: another run has been at it for too long.
    """
    client = store.client
    client.set_tag(run, _NUMBER, _CHOOSING)
    client.set_tag(run, _OF, what)
    try:
        others = _waiting(store, run, what).values()
        mine = 1 + max((int(each) for each in others if each != _CHOOSING), default=0)
        client.set_tag(run, _NUMBER, str(mine))
        began = time.monotonic()
        while before := _before(_waiting(store, run, what), mine, run):
            if time.monotonic() - began > PATIENCE:
                remedy = "wait for its end, or stop it"
                raise UserError(f"run {ledger.find_run(store, before[0]).name} has been at it for minutes", what, remedy)
            time.sleep(min(_PAUSE * len(before) ** 1.5, _LONGEST_PAUSE))  # those far behind leave the record alone
        yield
    finally:
        for tag in (_OF, _NUMBER):
            client.delete_tag(run, tag)


def _before(others: dict[str, str], mine: int, run: str) -> list[str]:
    """Runs that come before this one, or may."""
    return [one for one, number in others.items() if number == _CHOOSING or (int(number), one) < (mine, run)]


def _waiting(store: Store, run: str, what: str) -> dict[str, str]:
    """Run -> number of the others that want the same and live."""
    there = ledger.running(store, {_OF: what})
    return {
        each.id: each.tags.get(_NUMBER, _CHOOSING) for each in there if each.id != run and environment.believed_alive(each.tags)
    }
