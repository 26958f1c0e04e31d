"""The worker: takes jobs in order, runs each as a process of its own, and notes how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch import process
from mlops_llm.launch.jobs import Job, State, after, says_enough
from mlops_llm.launch.place import Again
from mlops_llm.launch.queue import Queue
from mlops_llm.tracking import environment, queued
from mlops_llm.tracking.outbox import put_aside
from mlops_llm.tracking.queued import Seen
from mlops_llm.tracking.refusals import AwayError
from mlops_llm.tracking.store import check_address

_PAUSE = 0.2
_LOOK_AGAIN = 10.0
"""Seconds between two looks at a run whose process cannot be seen from here."""
_AT_ONCE = 5.0
"""Seconds that a process has for its end that should not have begun."""


@dataclass
class _Watched:
    """A running job, and what is known of its process."""

    job: Job
    child: subprocess.Popen[bytes] | None = None
    """None where an earlier worker started it, or where it has ended."""
    code: int | None = None
    """Exit code, once it has ended and the record has yet to tell what that means."""
    next_look: float = 0.0


class Worker:
    """Works through a queue."""

    def __init__(self, queue: Queue, slots: int) -> None:
        """Run at most `slots` jobs at once."""
        self._queue, self._slots = queue, slots
        self._running: dict[int, _Watched] = {}
        self._away: dict[str, float] = {}
        """Address of a record that does not answer -> when it is asked again."""
        self._next_start = self._next_close = 0.0
        self.ended: list[Job] = []
        """Jobs that ended while this worker watched."""

    def work(self, until_empty: bool) -> None:
        """Work until Ctrl-C or SIGTERM, or until no job is left. Jobs that run then go on; the next worker watches them.

        Raises:
            UserError: another worker works on the queue.
        """
        with self._queue.only_worker(), _stop_asked() as asked:
            self._take_over()
            while not asked.stop:
                for watched in list(self._running.values()):
                    self._look(watched)
                while self._is_free() and (job := self._next()):
                    self._start(job)
                self._close_owed()
                if until_empty and not self._running:
                    return
                time.sleep(_PAUSE)
            for watched in self._running.values():
                console.say(f"{_named(watched.job)} goes on by itself; the next worker watches it")

    def _is_free(self) -> bool:
        return len(self._running) < self._slots and time.monotonic() >= self._next_start

    def _next(self) -> Job | None:
        """The next job whose record is not known to be away."""
        now = time.monotonic()
        self._away = {address: until for address, until in self._away.items() if until > now}
        job = self._queue.take(self._is_away) if self._away else self._queue.take()
        if job is None and self._away:
            self._next_start = min(self._away.values())
        return job

    def _is_away(self, job: Job) -> bool:
        try:
            return process.address_of(job.command, os.environ) in self._away
        except UserError:
            return False  # its start says why

    def _take_over(self) -> None:
        """Watch what an earlier worker left."""
        self._queue.mend()
        for job in self._queue.jobs():
            if job.state is not State.running:
                continue
            if not job.process:
                job = self._note(job, process.lost(self._mark(job)))
            self._running[job.number] = _Watched(job)
            if process.lives(job):
                console.say(f"{_named(job)} runs already (process {job.process.partition(':')[0]})")

    def _start(self, job: Job) -> None:
        try:
            address = process.address_of(job.command, os.environ)
            if not self._answers(address, job):
                return
            words, adopt = self._command(job)
            child = process.begin(job.command, words, self._mark(job), self._queue.log(job.number), adopt)
        except UserError as error:
            self._end(job, 2, str(error))
            return
        job = self._note(job, environment.process(child.pid))
        if job.state.ended:  # it was cancelled while the worker looked for its record
            process.stop(job, _AT_ONCE)
            child.wait()
            self._note(job, "")
            return
        self._running[job.number] = _Watched(job, child)
        goes_on = "goes on" if words != job.command.words else "started"
        times = f", start {job.starts} of {job.tries}" if job.starts > 1 else ""
        console.say(f"{_named(job)}: {goes_on} (process {child.pid}{times})")

    def _answers(self, address: str, job: Job) -> bool:
        """Whether the record's server is there; if not, the job waits on, and for a while so do others of this record."""
        try:
            check_address(address)
        except AwayError as error:
            reason = str(error)
            job = self._queue.change(job.number, lambda each: _put_back(each, reason))
            self._away[address] = time.monotonic() + _LOOK_AGAIN
            if job.state is State.waiting:
                console.warn(f"{_named(job)} waits: {reason}")
            return False
        return True

    def _mark(self, job: Job) -> str:
        return f"{self._queue.folder}/{job.number}"

    def _note(self, job: Job, tag: str) -> Job:
        return self._queue.change(job.number, lambda each: replace(each, process=tag))

    def _command(self, job: Job) -> tuple[tuple[str, ...], bool]:
        """The words of a job's next start, and whether its process is to adopt the run."""
        command = job.command
        if command.words[0].startswith("resume="):
            return command.words, False
        if job.starts == 1:
            return command.words, True
        seen = self._seen(job)
        if command.again is Again.resume and seen.begun:
            return (f"resume={command.run}",), False
        if seen.output:
            put_aside(command.run, Path(command.folder), seen.output, job.starts - 1)
        return command.words, True

    def _look(self, watched: _Watched) -> None:
        """See whether a job's process has ended."""
        job = watched.job
        if watched.child is not None:
            watched.code = watched.child.poll()
            if watched.code is None:
                return
            watched.child = None
            if says_enough(job, watched.code):
                self._end(job, watched.code, process.last_error(self._queue.log(job.number)))
                return
        if (watched.code is None and process.lives(job)) or time.monotonic() < watched.next_look:
            return
        watched.next_look = time.monotonic() + _LOOK_AGAIN
        try:
            seen = self._seen(job)
        except UserError as error:
            console.warn(f"{_named(job)}: {error}")
            return
        if watched.code is not None or not seen.alive:
            self._end(job, watched.code, process.last_error(self._queue.log(job.number)), seen)

    def _end(self, job: Job, code: int | None, said: str, seen: Seen | None = None) -> None:
        """Note how a job ended, and close its run where its process did not."""
        self._running.pop(job.number, None)
        status = seen.status if seen else ""
        job = self._queue.change(job.number, lambda each: after(each, code, status, said))
        if job.state in (State.failed, State.cancelled):
            self._close(job)
        if job.state.ended:
            self.ended.append(job)
        took = console.seconds(time.time() - job.began)
        state = "put back" if job.state is State.waiting else job.state.name
        console.say(f"{_named(job)}: {state} after {took}" + (f" ({job.reason})" if job.reason else ""))

    def _seen(self, job: Job) -> Seen:
        return queued.look(process.address_of(job.command, os.environ), job.command.run, Path(job.command.folder))

    def _close(self, job: Job) -> None:
        status = "KILLED" if job.state is State.cancelled else "FAILED"
        owed = False
        try:
            queued.close(process.address_of(job.command, os.environ), job.command.run, status, job.reason)
        except UserError as error:
            owed = True
            console.warn(f"{_named(job)}: its run cannot be closed yet: {error}")
        if owed != job.owed:
            self._queue.change(job.number, lambda each: replace(each, owed=owed))

    def _close_owed(self) -> None:
        """Close the runs that could not be closed while the record was away, also those of an earlier worker."""
        if time.monotonic() < self._next_close:
            return
        self._next_close = time.monotonic() + _LOOK_AGAIN
        for job in self._queue.jobs():
            if job.owed:
                self._close(job)


def _put_back(job: Job, reason: str) -> Job:
    """A job that was taken and cannot begin, unless somebody has cancelled it meanwhile."""
    if job.state is not State.running or job.cancel:
        return after(job, None, "")
    return replace(job, state=State.waiting, starts=job.starts - 1, reason=reason)


def _named(job: Job) -> str:
    return f"job {job.number} ({job.command.stage} {job.command.name})"


@dataclass
class _Asked:
    """Whether the worker is to end."""

    stop: bool = False


@contextmanager
def _stop_asked() -> Iterator[_Asked]:
    """Ctrl-C and SIGTERM ask, instead of breaking in between two writes."""
    asked = _Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        asked.stop = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, each in before.items():
            signal.signal(number, each)
