"""The end of a flow: one page, the same printed, and what the record keeps of it."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.pipeline.flow import Flow
from mlops_llm.pipeline.page import page
from mlops_llm.pipeline.verdict import Verdict, verdict
from mlops_llm.record import Grid, Result, Run
from mlops_llm.tracking import ledger
from mlops_llm.tracking.opening import PIPELINE_BEST
from mlops_llm.tracking.store import Store

PAGE = "pipeline.html"
"""Artifact: the page for a person."""
_SHOWN = 5
"""Reasons that are printed; the page has all."""


def concluded(flow: Flow, ended: Sequence[Ended], store: Store, run: Run, began: float) -> Result:
    """Record and say what became of a flow.

    Args:
        flow: that was carried out.
        ended: its stages.
        store: the record.
        run: of the pipeline, open.
        began: seconds since 1970.
    """
    found = verdict(store, ended, flow.settings.score)
    seconds = time.time() - began
    count = Counter(each.state for each in ended)
    stages, scores = _stages(ended), _scores(found)
    # One that goes on after a failure ends once more.
    step = len(ended) + len(ledger.history(store, ledger.find_run(store, run.name).id, "perf/seconds"))
    run.metrics({f"stages/{state.name}": float(count[state]) for state in State} | {"perf/seconds": seconds}, step)
    if found.best:
        run.metrics({found.score: found.best.values[found.score]}, step)
        run.tags({PIPELINE_BEST: found.best.model})
    run.artifact("stages.json", {name: [row[place] for row in stages.rows] for place, name in enumerate(stages.columns)})
    run.artifact(PAGE, page(run.name, flow.settings.project, ended, found, _links(store, ended), console.seconds(seconds)))
    said = ", ".join(f"{times} {state.value}" for state, times in count.items())
    failed = any(each.state.fails for each in ended)
    said_no = [each.step.name for each in ended if each.state in (State.no, State.refused)]
    table = {
        "stages": said,
        "won": found.best.model if found.best else None,
        **{f"decision{f' {place}' if place > 1 else ''}": each for place, each in enumerate(found.decisions, 1)},
        **{f"why{f' {place}' if place > 1 else ''}": each for place, each in enumerate(found.why[:_SHOWN], 1)},
        "page": f"{PAGE} among the artifacts",
        "time": console.seconds(seconds),
    }
    values = {
        "stages": {each.step.name: _told(each) for each in ended},
        "best": found.best.model if found.best else None,
        "score": found.score or None,
        "scores": {each.model: each.values for each in found.scored},
        "why": list(found.why),
        "decisions": list(found.decisions),
    }
    return Result(
        f"{run.name}: {_said(failed, said_no, bool(count[State.failed]))}",
        {name: value for name, value in table.items() if value is not None},
        values,
        [stages, *([scores] if scores else [])],
        failed=failed,
        broken=_broken(run.name, ended),
        score=found.best.values[found.score] if found.best else None,
        higher_is_better=found.higher_is_better,
        score_name=found.score,
    )


def _broken(run: str, ended: Sequence[Ended]) -> UserError | None:
    names = [each.step.name for each in ended if each.state is State.failed]
    if not names:
        return None
    remedy = f"what is done is not done twice: python -m mlops_llm.pipeline resume={shlex.quote(run)}"
    return UserError(f"{len(names)} of {len(ended)} stages failed: {', '.join(names)}", remedy=remedy)


def _said(failed: bool, said_no: Sequence[str], broken: bool) -> str:
    if broken or (failed and not said_no):
        return "failed"
    return f"{'' if failed else 'done; '}{', '.join(said_no)} said no" if said_no else "done"


def _stages(ended: Sequence[Ended]) -> Grid:
    rows = [
        [
            each.step.name,
            each.step.operation,
            each.state.value,
            console.seconds(each.seconds) if each.seconds else "-",
            each.told or "-",
            each.ref or "-",
            each.reason,
        ]
        for each in ended
    ]
    columns = ["stage", "what", "ended", "time", "number", "made", "reason"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Grid("what was tried", columns, rows)


def _scores(found: Verdict) -> Grid | None:
    if not found.scored:
        return None
    names = found.names
    rows = [["*" if each is found.best else "", each.model, *map(each.values.get, names)] for each in found.scored]
    return Grid("scores", ["best", "model", *names], rows)


def _told(one: Ended) -> dict[str, Any]:
    run = one.made.run.name if one.made and one.made.run else None
    return {
        "state": one.state.name,
        "run": run,
        "made": one.ref or None,
        "seconds": round(one.seconds, 2),
        "reason": one.reason or None,
        "log": str(one.log) if one.log else None,
        "command": one.command or None,
    }


def _links(store: Store, ended: Sequence[Ended]) -> Mapping[str, str]:
    """Stage -> the page of its run."""
    runs = {each.step.name: each.made.run for each in ended if each.made}
    return {name: store.link(run.experiment, run.id) for name, run in runs.items() if run}
