"""`op=cancel`."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch import process, sent
from mlops_llm.launch.elsewhere import conclude, place_of
from mlops_llm.launch.jobs import Job, State, after
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.queue import Queue
from mlops_llm.launch.sent import Sent
from mlops_llm.record import Result
from mlops_llm.tracking import queued

_LOOK = 0.1
_START = 5.0
"""Seconds in which a worker that took a job has started its process."""


@component("op", "cancel")
@dataclass
class Cancel:
    """Take a job back: one that waits is not started, one that runs is stopped and its run marked KILLED."""

    job: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The job's number, or its run's name."""
    patience: float = 60.0
    """Seconds in which a running job may put its things in order; then it is killed."""
    force: bool = False
    """Strike the job even if its place cannot be reached: its run is closed, and what may run there is not stopped."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.patience < math.inf:
            raise UserError(f"is {self.patience}", "op.patience", "give a number from 0")

    def carry_out(self) -> Result:
        """Cancel the job."""
        if not self.job:
            raise UserError("names no job", "op.job", "give its number or its run's name; see op=list")
        queue = Queue()
        away = sent.find(self.job)
        if away is not None:
            return self._elsewhere(away)
        found = queue.find(self.job)
        number = found.number
        if found.state.ended:
            raise UserError(f"job {number} is {found.state.name} already", "op.job", "see op=list")
        marked = queue.change(number, _wanted)
        if marked.state is State.running:
            _stop(queue, marked, self.patience)
        job = queue.find(str(number))
        _close(job.command, job.reason)
        goes_on = f"; go on with: python -m mlops_llm.{job.command.stage} resume={job.command.name}"
        console.say(f"job {number} ({job.command.stage} {job.command.name}) is {job.state.name}{goes_on if _can(job) else ''}")
        return Result("cancel", {}, {})

    def _elsewhere(self, job: Sent) -> Result:
        """Stop a job that runs elsewhere, and mark its run."""
        name = job.command.name
        if job.state.ended:
            raise UserError(f"the job of {name} is {job.state.name} already", "op.job", "see op=list")
        place, brought, reason = place_of(job), list[str](), "cancelled"
        try:
            if job.handle and place.look(job).state.ended:
                conclude(place, job)
                console.say(f"{name} had ended before: {sent.required(job.command.run).state.name}")
                return Result("cancel", {}, {})
            if job.handle:
                place.stop(job, self.patience)
                brought = place.bring(job)
        except UserError as error:  # the place is away, or gone, or lets nobody in any more
            if not self.force:
                strike = "strike it without stopping it: op.force=true"
                raise UserError(error.what, error.where, f"{error.remedy or 'try again'}, or {strike}") from error
            console.warn(f"{error}; what may run there was not stopped")
            place.strike(job)
            reason = "struck, its place could not be used"
        sent.ended(job, State.cancelled, reason=reason)
        _close(job.command, "cancelled")
        for line in brought:
            console.say(line)
        goes_on = f"; go on with: python -m mlops_llm.{job.command.stage} resume={name}"
        console.say(f"{name} is cancelled{goes_on if job.command.again is Again.resume else ''}")
        return Result("cancel", {}, {})


def _wanted(job: Job) -> Job:
    if job.state is State.waiting:
        return replace(job, cancel=True, state=State.cancelled, ended=time.time(), reason="cancelled while it waited")
    return replace(job, cancel=True) if job.state is State.running else job


def _stop(queue: Queue, job: Job, patience: float) -> None:
    """Stop a running job and note it, where no worker does."""
    until = time.monotonic() + _START
    while not job.process and job.state is State.running and time.monotonic() < until:
        time.sleep(_LOOK)
        job = queue.find(str(job.number))
    process.stop(job, patience)
    queue.change(job.number, lambda each: after(each, None, ""))


def _close(command: Command, reason: str) -> None:
    try:
        queued.close(process.address_of(command, os.environ), command.run, "KILLED", reason)
    except UserError as error:
        console.warn(f"its run could not be closed: {error}")


def _can(job: Job) -> bool:
    return job.starts > 0 and job.command.again.name == "resume"
