"""A job of the queue, and the rule of what becomes of it when its process ends."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum

from mlops_llm.launch.place import Again, Command, command_of

SIGNALLED = (130, 143)
"""Exit codes of a command that Ctrl-C or SIGTERM ended in good order."""


class State(Enum):
    """How far a job is."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the job."""
        return self not in (State.waiting, State.running)


@dataclass(frozen=True)
class Job:
    """A command in the queue, and what happened to it so far. Times are seconds since 1970."""

    command: Command
    tries: int
    """Starts at most."""
    number: int = 0
    queued: float = 0.0
    state: State = State.waiting
    starts: int = 0
    began: float = 0.0
    """Time of the last start."""
    ended: float = 0.0
    process: str = ""
    """`pid:start time` of the last start's process; its pid is also that of its process group."""
    host: str = ""
    """Machine and container of that process."""
    cancel: bool = False
    """Somebody wants it to stop."""
    reason: str = ""
    """Why it failed, was put back or was cancelled."""
    owed: bool = False
    """It has ended, and the record was away when its run was to be closed."""

    def dumped(self) -> bytes:
        """The job as the queue's file holds it."""
        return json.dumps(asdict(self), default=lambda choice: choice.name, ensure_ascii=False).encode()


def loaded(text: bytes) -> Job:
    """The job that `dumped` wrote."""
    values = json.loads(text)
    known = {field.name for field in fields(Job)}
    values = {key: value for key, value in values.items() if key in known}
    return Job(**values | {"command": command_of(values["command"]), "state": State[values["state"]]})


AWAY = 75
"""Exit code of a job whose record did not answer before its work began (EX_TEMPFAIL of sysexits.h)."""


def says_enough(job: Job, code: int) -> bool:
    """Whether an exit code tells by itself what became of a job; else `after` needs the run's status."""
    return job.cancel or code in (0, 1, *SIGNALLED) or (code == 2 and job.starts == 1)


def after(job: Job, code: int | None, status: str, said: str = "") -> Job:
    """What a job is once its process has ended.

    A process that ended by its own word decides: 0 is done, 1 and 2 are failed, a signal that it could answer is cancelled.
    Of one that ended without a word (kill -9, no memory, power), or while nobody watched, the record tells: FINISHED is done,
    FAILED is failed, and all else is an interruption, also KILLED, as by a machine that goes down. An interrupted job waits
    again unless it was started `tries` times already. One that finds its run FINISHED when it is to go on was done before: the
    record was away when its earlier process ended.

    Args:
        job: it must be running, else it is returned as it is.
        code: the process's exit code, negative for a signal; None where the process was another's child.
        status: the run's status in the record, where it is known.
        said: the process's last error line.
    """
    if job.state is not State.running:
        return job
    over = replace(job, ended=time.time(), process="")
    if job.cancel:
        return replace(over, state=State.cancelled, reason="cancelled")
    if code in SIGNALLED:
        return replace(over, state=State.cancelled, reason="ended by a signal from elsewhere")
    spoke = code in (0, 1, 2)
    if code == 0 or (status == "FINISHED" and (not spoke or (code == 2 and job.starts > 1))):
        return replace(over, state=State.done, reason="")
    if spoke or status == "FAILED":
        return replace(over, state=State.failed, reason=said or f"exit code {code if spoke else 1}")
    how = "its process was killed" if code is None or code < 0 else f"its process ended with exit code {code}"
    how = said if code == AWAY and said else how
    if job.command.again is Again.no and status != "SCHEDULED":
        remedy = f"go on with each of the multirun's jobs: resume={job.command.name}-0"
        return replace(over, state=State.failed, reason=f"{how}; {remedy}")
    if job.starts >= job.tries:
        return replace(over, state=State.failed, reason=f"{how}, at start {job.starts} of {job.tries}")
    return replace(over, state=State.waiting, ended=0.0, reason=how)
