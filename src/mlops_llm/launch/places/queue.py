"""`launch=queue`."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch.jobs import Job
from mlops_llm.launch.place import Command, Place
from mlops_llm.launch.queue import Queue
from mlops_llm.tracking import queued
from mlops_llm.tracking.store import address


@component("launch", "queue")
@dataclass
class OnQueue(Place):
    """Put the command into this machine's queue, which `python -m mlops_llm.launch op=work` works through."""

    here: ClassVar[bool] = False
    tries: int = 3
    """Starts at most of a command whose process is killed: a run goes on from its last checkpoint."""

    def __post_init__(self) -> None:
        """Check the number."""
        if self.tries < 1:
            raise UserError(f"is {self.tries}", "launch.tries", "give a whole number from 1")

    def send(self, command: Command) -> list[str]:
        """Queue the command."""
        queue = Queue()
        number = queue.number()
        queued.note(address(), command.run, f"{number} on {socket.gethostname()}")
        job = queue.add(Job(command, self.tries, number))
        ask = "python -m mlops_llm.launch"
        said = [
            f"queued as job {job.number}: run {command.name} ({command.run})",
            f"watch it:    {ask} op=logs op.job={job.number} op.follow=true   (all jobs: op=list; take it back: op=cancel)",
        ]
        for name in command.lacks(os.environ):
            lacks = "" if os.environ.get(name) else ", which is not set here either"
            said.append(f"needs:       {name} in the worker's environment{lacks}")
        if not queue.worker():
            said.append(f"no worker runs on this machine: start one with {ask} op=work")
        return said
