"""The queue: one SQLite file of this user on this machine.

huey's storage keeps it. huey's consumer does not work it: that takes a task out before it runs it, so that a task is lost with
its process; it runs Python functions, unpickled from the file; and it cannot stop one that runs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.launch.jobs import Job, State, loaded
from mlops_llm.tracking import environment

KEPT = 500
"""Ended jobs that stay listed, with their output."""
_FRONT, _BACK = 1, 0
_PATIENCE = 30.0


def queue_folder() -> Path:
    """Where the queue lies: `$MLOPS_LLM_QUEUE`, else `mlops_llm/queue/HOST` under `$XDG_STATE_HOME` or `~/.local/state`.

    One for all folders and records, since what its jobs share is the machine; a home folder may be shared by several.
    """
    own = os.environ.get("MLOPS_LLM_QUEUE")
    shared = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(own or f"{shared}/mlops_llm/queue/{socket.gethostname()}").expanduser().absolute()


class Queue:
    """Jobs in the order in which they were queued. Every change happens under one lock, so readers see whole states only."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the queue in a folder, or this user's; nothing is made before the first job."""
        self.folder = folder or queue_folder()

    @property
    def exists(self) -> bool:
        """Whether there was ever a job."""
        return (self.folder / "queue.db").exists()

    def number(self) -> int:
        """A number that no other job has."""
        with self._locked():
            return int(self._storage.incr("jobs"))

    def add(self, job: Job) -> Job:
        """Put a job at the end; return it with its number, a new one if it has none."""
        numbered = replace(job, number=job.number or self.number(), queued=time.time())
        with self._locked():
            self._write(numbered)
            self._enqueue(numbered, _BACK)
        return numbered

    def take(self, passed_over: Callable[[Job], bool] = lambda job: False) -> Job | None:
        """Start the next job: from now on it is running, though it has no process yet.

        Args:
            passed_over: whether a job is left where it is.
        """
        left: list[Job] = []
        taken: Job | None = None
        with self._locked():
            while taken is None and (item := self._storage.dequeue()) is not None:
                job = self._read(int(bytes(item)))
                if job and job.state is State.waiting and passed_over(job):
                    left.append(job)
                elif job and job.state is State.waiting:
                    host = environment.host()
                    taken = replace(job, state=State.running, starts=job.starts + 1, began=time.time(), host=host)
                    self._write(taken)
            for each in left:
                self._enqueue(each, _FRONT)
        return taken

    def change(self, number: int, changed: Callable[[Job], Job]) -> Job:
        """Make a job what `changed` says it is now; one that waits again stands in front."""
        with self._locked():
            before = self._read(number)
            if before is None:
                raise UserError(f"job {number} is gone from the queue", str(self.folder), "see op=list")
            job = changed(before)
            self._write(job)
            if job.state is State.waiting and before.state is not State.waiting:
                self._enqueue(job, _FRONT)
        return job

    def jobs(self) -> list[Job]:
        """All jobs by number."""
        if not self.exists:
            return []
        return sorted((loaded(bytes(value)) for value in self._storage.result_items().values()), key=lambda job: job.number)

    def find(self, which: str) -> Job:
        """A job by its number or its run's name or id; of several with that name the last.

        Raises:
            UserError: there is none.
        """
        jobs = self.jobs()
        found = [job for job in jobs if which in (str(job.number), job.command.name, job.command.run)]
        if not found:
            names = [name for job in jobs for name in (str(job.number), job.command.name)]
            remedy = "see python -m mlops_llm.launch op=list"
            raise UserError(f"no job is called '{which}'{near(which, names)}", "op.job", remedy)
        return found[-1]

    def mend(self) -> None:
        """Put back what a death between two writes left out of the order, and forget the oldest ended jobs."""
        jobs = self.jobs()
        with self._locked():
            order = {int(bytes(item)) for item in self._storage.enqueued_items()}
            for job in jobs:
                if job.state is State.waiting and job.number not in order:
                    self._enqueue(job, _FRONT)
            for job in [job for job in jobs if job.state.ended][:-KEPT]:
                self._storage.delete_data(str(job.number))
                self.log(job.number).unlink(missing_ok=True)

    def log(self, number: int) -> Path:
        """The file of a job's output."""
        return self.folder / "logs" / f"{number}.log"

    def worker(self) -> str:
        """`pid:start time` of the worker; empty where none works."""
        try:
            tag = (self.folder / "worker").read_text("utf-8")
        except FileNotFoundError:  # also of one that ends at this moment
            return ""
        return tag if environment.lives(tag) else ""

    @contextmanager
    def only_worker(self) -> Iterator[None]:
        """Be the queue's worker within the block.

        Raises:
            UserError: there is one.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._made() / "worker.lock")
        try:
            lock.acquire(timeout=0.5)
        except Timeout as error:
            pid = self.worker().partition(":")[0] or "?"
            remedy = "stop it first, or start it with op.workers=N to run several jobs at once"
            raise UserError(f"a worker works on this queue already (process {pid})", str(self.folder), remedy) from error
        write_text(self.folder / "worker", environment.process(os.getpid()))
        try:
            yield
        finally:
            (self.folder / "worker").unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self._made() / "queue.lock", timeout=_PATIENCE):
            yield

    def _made(self) -> Path:
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
        except OSError as error:
            remedy = "name another folder with MLOPS_LLM_QUEUE"
            raise UserError(f"cannot keep the queue ({error.strerror})", str(self.folder), remedy) from error
        return self.folder

    @cached_property
    def _storage(self) -> Any:
        from huey.storage import SqliteStorage

        return SqliteStorage("mlops_llm", filename=str(self._made() / "queue.db"), fsync=True)

    def _enqueue(self, job: Job, priority: int) -> None:
        self._storage.enqueue(str(job.number).encode(), priority)

    def _read(self, number: int) -> Job | None:
        found = self._storage.peek_many([str(number)])
        return loaded(bytes(found[str(number)])) if found else None

    def _write(self, job: Job) -> None:
        self._storage.put_data(str(job.number), job.dumped())
