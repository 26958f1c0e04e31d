"""`op=work`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch.jobs import State
from mlops_llm.launch.queue import Queue
from mlops_llm.launch.worker import Worker
from mlops_llm.record import Result


@component("op", "work")
@dataclass
class Work:
    """Be the worker: run the jobs of the queue, each in a process of its own, until Ctrl-C or SIGTERM."""

    workers: int = 1
    """Jobs that run at once."""
    until_empty: bool = False
    """End when no job is left that can be started, instead of waiting for more."""

    def __post_init__(self) -> None:
        """Check the number."""
        if self.workers < 1:
            raise UserError(f"is {self.workers}", "op.workers", "give a whole number from 1")

    def carry_out(self) -> Result:
        """Work."""
        queue = Queue()
        worker = Worker(queue, self.workers)
        console.say(f"working on the queue in {queue.folder}" + ("" if self.until_empty else "; Ctrl-C ends it"))
        worker.work(self.until_empty)
        counts = Counter(job.state.name for job in worker.ended)
        table: dict[str, object] = {"jobs ended": len(worker.ended), **dict(sorted(counts.items()))}
        waiting = [job for job in queue.jobs() if job.state is State.waiting] if self.until_empty else []
        if waiting:
            table["still waiting"] = f"{len(waiting)}, for their records (job {waiting[0].number}: {waiting[0].reason})"
        return Result("worked", table, {}, failed=bool(waiting))
