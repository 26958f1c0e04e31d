"""A batch: its jobs one after the other, each in a run of its own; what fails takes down only what needs it."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.component import load, name_of
from mlops_llm.errors import UserError, unexpected
from mlops_llm.files import expanded
from mlops_llm.record import Grid, NullRun, Result, Run
from mlops_llm.surgery.batch.file import REF, Job, read
from mlops_llm.surgery.batch.identity import JOB, RESULT, Earlier, earlier, identity
from mlops_llm.surgery.batch.settings import request as typed
from mlops_llm.surgery.config import PACKAGES, Surgery
from mlops_llm.surgery.operation import Work

_ABOUT_ONE = ("model", "models", "base", "run", "output", "name")
"""Settings of one operation, which a batch has none of."""


class State(Enum):
    """How a job ended."""

    done = "done"
    there = "there already"
    failed = "failed"
    skipped = "skipped"


@dataclass(frozen=True)
class Ended:
    """A job and its end."""

    job: Job
    operation: str
    state: State
    ref: str = ""
    """Of what it made."""
    seconds: float = 0.0
    reason: str = ""


@dataclass
class Batch:
    """Jobs that can be carried out."""

    usual: Surgery
    """What a setting is that a job does not give."""
    jobs: Sequence[Job]
    requests: Mapping[str, Surgery]
    """Job -> its settings, with other jobs' results still named as such."""
    works: dict[str, Work] = field(default_factory=dict)
    """Of jobs that are not there yet, while all that they need is."""
    ended: dict[str, Ended] = field(default_factory=dict)


def prepared(file: str, usual: Surgery, *, dry_run: bool = False) -> Batch | Result:
    """Read a file of jobs and check it whole: every setting, every ref between jobs, and every plan that can be made now.

    Args:
        file: its path.
        usual: the batch's own settings, which a job has where it does not give others.
        dry_run: show what would be done.

    Raises:
        UserError: something is wrong; file, line and setting are named.
    """
    for package in PACKAGES:
        load(package)
    given = next((name for name in _ABOUT_ONE if getattr(usual, name)), None)
    if given:
        raise UserError("is a setting of one operation", given, f"give it to a job of {file}")
    jobs = read(expanded(file))
    batch = Batch(usual, jobs, {job.name: _request(job, usual) for job in jobs})
    _refuse_same_output(batch)
    shown: list[Grid | str] = []
    for job in jobs:
        if all(name in batch.ended for name in job.needs):
            found = _plan(batch, job, dry_run=dry_run)
            shown += found.shown if found else []
    return _foreseen(batch, shown) if dry_run else batch


def _request(job: Job, usual: Surgery) -> Surgery:
    try:
        found = typed(usual, job.settings)
    except UserError as error:
        raise job.error(error) from error
    if name_of(found.op) == "batch":
        raise UserError("is a batch within a batch", job.where("op"), "write its jobs into this file")
    if getattr(found.op, "dry_run", False):
        raise UserError("is for the whole batch", job.where("op.dry_run"), "give op.dry_run=true on the command line")
    folder = Path(usual.folder or ".") / job.name
    return dataclasses.replace(found, folder=str(folder), run_name=f"{usual.run_name}-{job.name}")


def _refuse_same_output(batch: Batch) -> None:
    taken: dict[Path, Job] = {}
    for job in batch.jobs:
        output = batch.requests[job.name].output
        if output:
            other = taken.setdefault(expanded(output).absolute(), job)
            if other is not job:
                raise UserError(f"job {other.name} writes there too", job.where("output"), "give each job a folder of its own")


def _plan(batch: Batch, job: Job, *, dry_run: bool) -> Result | None:
    """Look for what is there of a job whose needs are there, and check its plan where it is to be done."""
    try:
        request = _settled(batch, job)
        found = earlier(request, identity(request))
        if found and found.whole:
            batch.ended[job.name] = Ended(job, name_of(request.op), State.there, found.ref)
            return None
        work = _work(request, found, dry_run=dry_run)
    except UserError as error:
        raise job.error(error) from error
    if isinstance(work, Result):
        return work
    batch.works[job.name] = work
    return None


def _work(request: Surgery, found: Earlier | None, *, dry_run: bool = False) -> Work | Result:
    """What is left to do of a job; of one that was cut off when all was written, only to check and record it."""
    if found and not found.whole:
        request = dataclasses.replace(request, resume=found.run, run_name=found.name or request.run_name)
    if hasattr(request.op, "dry_run"):
        request = dataclasses.replace(request, op=dataclasses.replace(request.op, dry_run=dry_run))
    work: Work | Result = request.op.prepare(request)
    return work


def _foreseen(batch: Batch, shown: Sequence[Grid | str]) -> Result:
    """What would be done, without a run."""
    rows = []
    for job in batch.jobs:
        ended = batch.ended.get(job.name)
        rows.append(
            (job.name, name_of(batch.requests[job.name].op), ended.state.value if ended else "to do", ", ".join(job.needs))
        )
    left = sum(row[2] == "to do" for row in rows)
    table = {"jobs": len(rows), "to do": left, "there already": len(rows) - left}
    return Result("plan of batch", table, {}, [Grid("jobs", ("job", "operation", "state", "after"), rows), *shown])


def carried_out(batch: Batch, run: Run) -> Result:
    """Do what is to be done, and say how each job ended."""
    for number, job in enumerate(batch.jobs, 1):
        if job.name in batch.ended:
            console.say(f"job {number} of {len(batch.jobs)}, {job.name}: {_there(batch.ended[job.name])}")
            continue
        lost = next((name for name in job.needs if batch.ended[name].state in (State.failed, State.skipped)), None)
        operation = name_of(batch.requests[job.name].op)
        if lost:
            batch.ended[job.name] = Ended(job, operation, State.skipped, reason=f"needs {lost}, which {_lost(batch, lost)}")
            console.warn(f"job {job.name} is skipped: it needs {lost}, which {_lost(batch, lost)}")
            continue
        console.say(f"job {number} of {len(batch.jobs)}, {job.name}: {operation}")
        batch.ended[job.name] = _ended(batch, job, run)
        if batch.ended[job.name].state is State.there:
            console.say(_there(batch.ended[job.name]))
    return _result(batch, run)


def _there(one: Ended) -> str:
    return f"{one.state.value}{f' ({one.ref})' if one.ref else ''}"


def _lost(batch: Batch, name: str) -> str:
    return "failed" if batch.ended[name].state is State.failed else "was skipped"


def _ended(batch: Batch, job: Job, run: Run) -> Ended:
    """A job's end; whatever goes wrong in it is its reason."""
    began = time.perf_counter()
    operation = name_of(batch.requests[job.name].op)

    def ended(state: State, ref: str = "", reason: str = "") -> Ended:
        return Ended(job, operation, state, ref, time.perf_counter() - began, reason)

    try:
        request = _settled(batch, job)
        which = identity(request)
        found = earlier(request, which)
        if found and found.whole:
            return ended(State.there, found.ref)

        with run.child(job.name, _flat(job, operation)) as own:
            own.tags({JOB: which})
            ready = batch.works.get(job.name) or _work(request, found)
            result = ready if isinstance(ready, Result) else ready(own)
            _keep(result, own)
        _show(result)
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else unexpected(error)
        logging.getLogger("mlops_llm").info("job %s", job.name, exc_info=True)
        console.fail(f"job {job.name}: {said}")
        return ended(State.failed, reason=said)
    if result.failed:
        return ended(State.failed, reason=result.title)
    return ended(State.done, _made(result, run))


def _made(result: Result, run: Run) -> str:
    """The ref of what a job made, outside of a record its folder; empty where it makes no checkpoint."""
    return str(result.values.get("output" if run.name == NullRun.name else "ref", ""))


def _settled(batch: Batch, job: Job) -> Surgery:
    """A job's settings with the results of the jobs that it needs.

    Raises:
        UserError: one of them made no checkpoint.
    """
    refs = {name: batch.ended[name].ref for name in job.refs}
    without = next((name for name, ref in refs.items() if not ref), None)
    if without:
        raise UserError(f"{REF}{without} is no checkpoint", job.where(), "such an operation makes none: leave the ref out")
    return _request(dataclasses.replace(job, settings=job.settled(refs)), batch.usual)


def _keep(result: Result, own: Run) -> None:
    """Write a job's result into its run."""
    own.artifact("result.json", json.dumps({**result.table, **result.values}, ensure_ascii=False, indent=2, default=str))
    if result.best:
        own.register(result.best)
    if not result.failed:
        own.tags({RESULT: _made(result, own)})


def _show(result: Result) -> None:
    for each in result.shown:
        if isinstance(each, Grid):
            console.grid(each.title, each.columns, each.rows)
        else:
            console.text(each)
    console.show(result.title, result.table)


def _flat(job: Job, operation: str) -> dict[str, Any]:
    return {"job": job.name, "choice.op": operation, **{key: value for key, value in job.settings.items() if key != "op"}}


def _time(seconds: float) -> str:
    return console.seconds(seconds) if seconds else "-"


def _result(batch: Batch, run: Run) -> Result:
    columns = ["job", "operation", "ended", "time", "made", "reason"]
    ends = [batch.ended[job.name] for job in batch.jobs]
    rows = [[one.job.name, one.operation, one.state.value, _time(one.seconds), one.ref, one.reason] for one in ends]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    run.artifact("jobs.json", {name: [row[place] for row in rows] for place, name in enumerate(columns)})
    count = Counter(one.state for one in batch.ended.values())
    good = count[State.done] + count[State.there]
    said = f"succeeded {good}, failed {count[State.failed]}, skipped {count[State.skipped]}"
    run.metrics({f"jobs/{state.name}": float(count[state]) for state in State}, 0)
    again = "give the command again: what is there is not done twice" if good < len(rows) else None
    table = {"jobs": said + (f" ({count[State.there]} were there already)" if count[State.there] else ""), "next": again}
    made = {one.job.name: one.ref for one in batch.ended.values() if one.ref}
    values = {"succeeded": good, "failed": count[State.failed], "skipped": count[State.skipped], "made": made}
    return Result(
        f"batch: {said}",
        {key: value for key, value in table.items() if value},
        values,
        [Grid("jobs", columns, rows)],
        failed=good < len(rows),
    )
