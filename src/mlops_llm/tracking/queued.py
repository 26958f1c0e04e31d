"""The runs of commands in a queue, for those who only watch: what became of them, and closing what nobody else will."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.errors import UserError
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.deliver import deliver
from mlops_llm.tracking.store import connect_to, database_file

OPEN = ("SCHEDULED", "RUNNING")


@dataclass(frozen=True)
class Seen:
    """A run as the record tells it."""

    status: str
    """Empty where the record has no such run any more."""
    alive: bool = False
    """It runs, as far as one can know."""
    output: Path | None = None
    """Folder of its files."""
    begun: bool = False
    """Its settings are recorded, so that it can go on."""


def look(address: str, run: str) -> Seen:
    """Look a run up.

    Raises:
        UserError: the record cannot be reached.
    """
    row = _row(address, run)
    if row is None:
        return Seen("")
    store = connect_to(address)
    begun = any(item.path == "config.yaml" for item in store.client.list_artifacts(run))
    alive = row.status == "RUNNING" and environment.believed_alive(row.tags)
    return Seen(row.status, alive, Path(row.tags["output"]) if "output" in row.tags else None, begun)


def close(address: str, run: str, status: str, reason: str) -> None:
    """Close a run whose process cannot do it any more, or never began; one that is closed stays as it is.

    Args:
        address: of the record.
        run: its id.
        status: FAILED or KILLED.
        reason: becomes the tag `run.error`.

    Raises:
        UserError: the record cannot be reached.
    """
    row = _row(address, run)
    if row is not None and row.status in OPEN:
        store = connect_to(address)
        store.client.set_tag(run, "run.error", reason[:1000])
        deliver(store, run, {"do": "finish", "status": status, "time": int(time.time() * 1000)}, again=True)


def note(address: str, run: str, job: str) -> None:
    """Say on a run which job it is."""
    connect_to(address).client.set_tag(run, "queue.job", job)


def _row(address: str, run: str) -> ledger.RunRow | None:
    file = database_file(address)
    if file and not file.exists():
        return None  # connecting would make a new one
    store = connect_to(address)
    try:
        return ledger.find_run(store, run)
    except UserError:
        return None
