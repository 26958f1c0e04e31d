"""The runs of commands in a queue, for those who only watch: what became of them, and closing what nobody else will."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.errors import UserError, first_line
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.deliver import deliver
from mlops_llm.tracking.opening import JOB
from mlops_llm.tracking.outbox import deliver_left_over
from mlops_llm.tracking.refusals import AwayError, told
from mlops_llm.tracking.secrets import mask_address
from mlops_llm.tracking.store import connect_to, database_file, is_away

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


def look(address: str, run: str, folder: Path | None = None) -> Seen:
    """Look a run up.

    Args:
        address: of the record.
        run: its id.
        folder: where its command was started, if that is on this machine: what a dead process left there is delivered first.

    Raises:
        UserError: the record cannot be reached.
    """
    with _reached(address):
        row = _row(address, run)
        if row is None:
            return Seen("")
        if folder and deliver_left_over(connect_to(address), folder, run):
            row = _row(address, run) or row
        begun = any(item.path == "config.yaml" for item in connect_to(address).client.list_artifacts(run))
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
    with _reached(address):
        row = _row(address, run)
        if row is not None and row.status in OPEN:
            store = connect_to(address)
            store.client.set_tag(run, "run.error", reason[:1000])
            deliver(store, run, {"do": "finish", "status": status, "time": int(time.time() * 1000)}, again=True)


def note(address: str, run: str, job: str) -> None:
    """Say on a run which job it is: from now on it waits for that job, and no longer for the process that made it.

    Raises:
        UserError: the record cannot be reached.
    """
    with _reached(address):
        connect_to(address).client.set_tag(run, JOB, job)


@contextmanager
def _reached(address: str) -> Iterator[None]:
    """What goes wrong in the block because the record is away is told as that."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        raise told(error, address) or AwayError(
            f"the record cannot be reached ({first_line(error)})", mask_address(address)
        ) from error


def _row(address: str, run: str) -> ledger.RunRow | None:
    file = database_file(address)
    if file and not file.exists():
        return None  # connecting would make a new one
    store = connect_to(address)
    try:
        return ledger.find_run(store, run)
    except UserError:
        return None
