"""A sweep: one parent run, its jobs nested, the best marked and registered."""

from __future__ import annotations

import json
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.entry.arguments import Arguments, as_typed, first_choices, number_of_jobs, quote, swept
from mlops_llm.entry.job import Outcome, Stage, child, links, refuse_in_use
from mlops_llm.errors import UserError, unexpected
from mlops_llm.files import check_part
from mlops_llm.launch.place import without_launch
from mlops_llm.record import Registration

_PATIENCE = 20
"""Half seconds in which the processes of an interrupted sweep are gone."""


@dataclass(frozen=True)
class _Job:
    """A job's row in the table."""

    name: str
    id: str
    values: dict[str, str]
    status: str
    score: float | None
    metric: str
    higher: bool
    registration: Registration | None
    reason: str


def multirun(stage: Stage, arguments: Arguments, name: str, outcome: Outcome) -> int:
    """Run all jobs of a sweep under one parent run; return 0, or 1 if any job failed or could not even be recorded."""
    from mlops_llm.entry import array, config, elsewhere
    from mlops_llm.tracking import secrets
    from mlops_llm.tracking.opening import PARENT, open_run
    from mlops_llm.tracking.store import connect

    composed = _check_compositions(stage, arguments.overrides)
    first = composed[0]
    settings = config.typed(first)
    if "op" in first and getattr(first.op, "name", "") == "plan":
        raise UserError("op=plan looks at one job", "op", "leave out -m and give one value each")
    secrets.refuse(config.flat(config.what(first)))
    keys = swept(arguments.overrides)
    if "launch" in keys:
        raise UserError("cannot be swept: all jobs of a multirun run in one place", "launch", "give one value")
    name = check_part(str(first.run_name or name), "run_name")
    output = Path((first[stage.folder] if stage.folder else None) or f"outputs/{name}").absolute()
    opening = _opening(stage, first, arguments, name, output)
    refuse_in_use(output)
    launching = array.launching(arguments)
    if "launch" in first and elsewhere.wanted(settings.launch):
        asked = [elsewhere.Asked(config.typed(each), config.flat(each)) for each in composed]
        return elsewhere.send(stage, asked, opening, arguments, outcome)
    with open_run(opening) as parent:
        parent.tags({"kind": "multirun"})
        if not arguments.value("run_name"):
            arguments.overrides.append(quote(f"run_name={name}"))
        os.environ[PARENT] = parent.id
        os.environ["MLFLOW_TRACKING_URI"] = connect().address  # jobs may start in other folders
        outcome.begin(parent.name)
        broken: Exception | None = None
        try:
            folders = quote(f"hydra.sweep.dir={output}"), "hydra.sweep.subdir=${hydra.job.num}"
            with launching or nullcontext():
                config.run(stage.name, arguments, _Task(stage), *folders)
        except Exception as error:
            broken = error
        except KeyboardInterrupt:
            stopped = _stopped(parent, keys)
            for other in stopped[1:]:
                console.warn(f"{other} was cut off too: resume={other}")
            outcome.begin(stopped[0] if stopped else parent.name)
            raise
        finally:
            os.environ.pop(PARENT, None)
        if launching is not None:
            array.close(parent.id)
        jobs = _jobs(parent, keys)
        best = _best(jobs)
        _conclude(parent, jobs, best, keys, step=0)
        links(parent)
        if broken is not None:
            raise broken
    missing = number_of_jobs(arguments.overrides) - len(jobs)
    if missing:
        console.warn(f"{missing} jobs could not be recorded; their reasons stand above")
    return 1 if missing or any(each.status != "FINISHED" for each in jobs) else 0


def _opening(stage: Stage, first: Any, arguments: Arguments, name: str, output: Path) -> Any:
    """What is known of the parent run before it starts."""
    from mlops_llm.entry import config
    from mlops_llm.tracking.run import Opening

    return Opening(
        stage=stage.name,
        project=stage.home(config.typed(first)),
        name=name,
        output=output,
        config={"sweep": ", ".join(swept(arguments.overrides)), "jobs": number_of_jobs(arguments.overrides)},
        overrides=tuple(
            as_typed(item)
            for item in [*arguments.flags, *without_launch(arguments.overrides)]
            if not item.startswith("run_name=")
        ),
    )


def conclude_again(store: Any, parent: str) -> None:
    """Bring a multirun's table and registration up to date after one of its jobs was resumed."""
    from mlops_llm.tracking.ledger import find_run, history
    from mlops_llm.tracking.run import MlflowRun, Opening

    row = find_run(store, parent)
    opening = Opening(row.tags["stage"], row.project, row.name, Path(row.tags["output"]), resume=parent)
    run = MlflowRun(store, parent, row.experiment, opening)
    keys = row.params.get("sweep", "").split(", ")
    jobs = _jobs(run, keys)
    _conclude(run, jobs, _best(jobs), keys, step=len(history(store, parent, _metric(jobs))))
    if str(len(jobs)) == row.params.get("jobs") and all(job.status == "FINISHED" for job in jobs):
        run.finish("FINISHED")


class _Task:
    """The job of a sweep; a class, so that it reaches other processes whole."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __call__(self, cfg: Any) -> None:
        """Run a job; its failure is recorded on it and does not end the others."""
        from mlops_llm.entry import array, complaints, config
        from mlops_llm.tracking.opening import PARENT

        config.register(self.stage.name, self.stage.schema, self.stage.packages)
        try:
            with array.job(self.stage, cfg, os.environ[PARENT]) as goes_on:
                if not goes_on:
                    child(self.stage, cfg, os.environ[PARENT])
        except Exception as error:
            said = complaints.one_line(error, self.stage.schema)
            console.fail(str(said) if said else unexpected(error))


def _check_compositions(stage: Stage, overrides: list[str]) -> list[Any]:
    """Compose every swept value once, so that a typo ends a multirun before it starts; return the first job's first."""
    from mlops_llm.entry import config

    plain = [item for item in overrides if not item.startswith(("hydra.", "+hydra."))]
    composed = [config.composed(stage.name, line) for line in first_choices(plain)]
    for each in composed:
        stage.foresee(config.typed(each))
    return composed


def _jobs(parent: Any, keys: list[str]) -> list[_Job]:
    from mlops_llm.tracking import ledger
    from mlops_llm.tracking.store import connect

    rows = []
    for run in ledger.children(connect(), parent.id):
        score = run.tags.get("best.score")
        kept = run.tags.get("best.registration")
        values = {key: run.params.get(key) or run.params.get(f"choice.{key}", "") for key in keys}
        rows.append(
            _Job(
                run.name,
                run.id,
                values,
                run.status,
                float(score) if score else None,
                run.tags.get("best.metric", "score"),
                run.tags.get("best.higher") == "true",
                Registration(**json.loads(kept)) if kept else None,
                run.tags.get("run.error", ""),
            )
        )
    return sorted(rows, key=lambda row: int(row.name.rpartition("-")[2]))


def _best(jobs: list[_Job]) -> _Job | None:
    scored = [each for each in jobs if each.score is not None and each.status == "FINISHED"]
    if not scored:
        return None
    return (max if scored[0].higher else min)(scored, key=lambda each: each.score)  # type: ignore[arg-type,return-value]


def _stopped(parent: Any, keys: list[str]) -> list[str]:
    """Names of the jobs that an interruption cut off, once the processes of parallel ones are gone."""
    from mlops_llm.tracking.opening import settle
    from mlops_llm.tracking.store import connect

    for _ in range(_PATIENCE):
        settle(connect())
        jobs = _jobs(parent, keys)
        if not any(job.status == "RUNNING" for job in jobs):
            break
        time.sleep(0.5)
    return [job.name for job in jobs if job.status in ("KILLED", "RUNNING")]


def _metric(jobs: list[_Job]) -> str:
    return next((each.metric for each in jobs if each.score is not None), "score")


def _conclude(parent: Any, jobs: list[_Job], best: _Job | None, keys: list[str], *, step: int) -> None:
    metric = _metric(jobs)
    rows = [
        [
            "*" if each is best else "",
            each.name,
            *each.values.values(),
            each.score,
            each.status.lower(),
            each.reason[:120],
        ]
        for each in jobs
    ]
    columns = ["best", "job", *keys, metric, "status", "reason"]
    if not any(each.reason for each in jobs):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    console.grid(f"{parent.name}: {len(jobs)} jobs", columns, rows)
    parent.artifact("jobs.json", {column: [row[place] for row in rows] for place, column in enumerate(columns)})
    parent.artifact(
        "result.json", json.dumps([dict(zip(columns, row, strict=True)) for row in rows], ensure_ascii=False, indent=2)
    )
    if best is None:
        return
    parent.tags({"best.job": best.name, "best.run": best.id, "best.score": repr(best.score), "best.metric": metric})
    parent.metrics({metric: float(best.score or 0.0)}, step)
    if best.registration:
        entry = best.registration
        said = f"{entry.description}; best of {len(jobs)} jobs of {parent.name} by {metric}"
        parent.register(Registration(entry.checkpoint, entry.model, entry.alias, said), of_run=best.id)
