"""Jobs that run elsewhere, as this user's state folder holds them: one file each, beside the queue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Command, command_of
from mlops_llm.launch.queue import KEPT, queue_folder


@dataclass(frozen=True)
class Sent:
    """A command that was handed to another machine or a cluster. Times are seconds since 1970."""

    command: Command
    place: str
    """The component of the group `launch` that holds it."""
    settings: Mapping[str, Any]
    """Its settings."""
    handle: Mapping[str, str]
    """By what the place finds the job again; empty while it is being handed over."""
    sent: float
    state: State = State.waiting
    code: int | None = None
    """Exit code of its process, where it is known."""
    ended: float = 0.0
    reason: str = ""
    """Why it failed or was cancelled."""


def folder() -> Path:
    """Where they lie."""
    return queue_folder() / "sent"


def keep(sent: Sent) -> Sent:
    """Write a job down; it appears whole or not at all."""
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        remedy = "name another folder with MLOPS_LLM_QUEUE"
        raise UserError(f"cannot keep the job ({error.strerror})", str(place), remedy) from error
    text = json.dumps(asdict(sent), default=lambda choice: choice.name, ensure_ascii=False)
    write_text(_file(sent.command.run), text)
    return sent


def change(run: str, changed: Callable[[Sent], Sent]) -> Sent:
    """Make a job what `changed` says it is now."""
    from filelock import FileLock

    with FileLock(f"{_file(run)}.lock"):
        return keep(changed(_read(_file(run))))


def forget(run: str) -> None:
    """Strike a job that was not handed over."""
    for each in (_file(run), Path(f"{_file(run)}.lock")):
        each.unlink(missing_ok=True)


def jobs() -> list[Sent]:
    """All jobs, the oldest first; of those that ended the last `KEPT` stay."""
    found = list[Sent]()
    for file in folder().glob("[!.]*.json"):  # not the drafts of `write_text`
        with suppress(FileNotFoundError):  # another command has just forgotten it
            found.append(_read(file))
    found.sort(key=lambda sent: sent.sent)
    old = [sent for sent in found if sent.state.ended][:-KEPT]
    for sent in old:
        forget(sent.command.run)
    return [sent for sent in found if sent not in old]


def find(which: str) -> Sent | None:
    """The job of a run, by its name or id; of several with that name the last."""
    found = [sent for sent in jobs() if which in (sent.command.name, sent.command.run)]
    return found[-1] if found else None


def required(which: str) -> Sent:
    """The job of a run.

    Raises:
        UserError: none was sent from here.
    """
    found = find(which)
    if found is None:
        remedy = "see python -m mlops_llm.launch op=list"
        names = [sent.command.name for sent in jobs()]
        raise UserError(f"no job elsewhere is called '{which}'{near(which, names)}", "op.job", remedy)
    return found


def ended(sent: Sent, state: State, code: int | None = None, reason: str = "") -> Sent:
    """Note how a job ended; the first word stands."""

    def over(before: Sent) -> Sent:
        return before if before.state.ended else replace(before, state=state, code=code, reason=reason, ended=time.time())

    return change(sent.command.run, over)


def _file(run: str) -> Path:
    return folder() / f"{run}.json"


def _read(file: Path) -> Sent:
    values = json.loads(file.read_text("utf-8"))
    return Sent(**values | {"command": command_of(values["command"]), "state": State[values["state"]]})
