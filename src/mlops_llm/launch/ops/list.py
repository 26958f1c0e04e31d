"""`op=list`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from mlops_llm import component as table
from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch import process, sent
from mlops_llm.launch.elsewhere import place_of
from mlops_llm.launch.jobs import Job, State
from mlops_llm.launch.queue import Queue
from mlops_llm.launch.sent import Sent
from mlops_llm.record import Grid, Result


@component("op", "list")
@dataclass
class List:
    """Show the queue and what was sent elsewhere: what waits, what runs, and what ended last."""

    rows: int = 10
    """Most ended jobs to show; result.json has all."""

    def __post_init__(self) -> None:
        """Check the number of lines."""
        if self.rows < 0:
            raise UserError(f"is {self.rows}", "op.rows", "give a whole number from 0")

    def carry_out(self) -> Result:
        """Look."""
        queue = Queue()
        jobs, worker = queue.jobs(), queue.worker()
        ended = [job for job in jobs if job.state.ended]
        older = len(ended) - self.rows
        shown = [*ended[max(0, older) :], *(job for job in jobs if not job.state.ended)]
        columns = ("job", "state", "age", "stage", "run", "note")
        said: list[Grid | str] = [Grid(f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}", columns, list(map(_row, shown)))]
        if older > 0:
            said.append(f"… and {older} older that ended (op.rows={len(ended)} shows all)")
        said += [f"look at {job.number}:  {job.command.link}" for job in shown]
        works = f"worker: process {worker.partition(':')[0]}"
        said.append(works if worker else "no worker runs on this machine: python -m mlops_llm.launch op=work")
        elsewhere = sent.jobs()
        if elsewhere:
            said += _elsewhere(elsewhere, self.rows)
        facts = {"jobs": [_facts(job) for job in jobs], "elsewhere": [_facts(job) for job in elsewhere]}
        return Result("queue", {}, facts, shown=said)


def _elsewhere(jobs: list[Sent], rows: int) -> list[Grid | str]:
    """The table of jobs that were sent elsewhere."""
    ended = [job for job in jobs if job.state.ended]
    shown = [*ended[max(0, len(ended) - rows) :], *(job for job in jobs if not job.state.ended)]
    columns = ("run", "state", "age", "stage", "where", "note")
    table = Grid(f"{len(jobs)} elsewhere", columns, [_sent_row(job) for job in shown])
    return [table, *(f"look at {job.command.name}:  {job.command.link}" for job in shown)]


def _sent_row(job: Sent) -> tuple[Any, ...]:
    place, command = place_of(job), job.command
    state, note = job.state.name, job.reason
    if not job.state.ended:
        try:
            look = place.look(job)
            state, note = look.state.name, look.note
            if look.state.ended:
                note = f"{note}; see what became of it: op=attend op.job={command.name}".removeprefix("; ")
        except UserError as error:
            note = str(error)
    return (command.name, state, console.seconds(time.time() - job.sent), command.stage, place.where(job.handle), note)


def _row(job: Job) -> tuple[Any, ...]:
    command = job.command
    return (
        job.number,
        job.state.name,
        console.seconds(time.time() - job.queued),
        command.stage,
        command.name,
        _note(job),
    )


def _note(job: Job) -> str:
    if job.state is State.running:
        if not process.lives(job):
            return "its process is gone; the next worker sees to it"
        times = f", start {job.starts} of {job.tries}" if job.starts > 1 else ""
        return f"process {job.process.partition(':')[0]} for {console.seconds(time.time() - job.began)}{times}"
    if job.state is State.waiting and job.reason:
        return f"{job.reason}; starts again"
    return job.reason or (f"took {console.seconds(job.ended - job.began)}" if job.state is State.done else "")


def _facts(job: Job | Sent) -> dict[str, Any]:
    facts = {field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name != "command"}
    command = job.command
    told = {"stage": command.stage, "run": command.name, "run_id": command.run, "link": command.link, "folder": command.folder}
    return table.plain(told | {"words": command.words} | facts)  # type: ignore[no-any-return]
