"""`then.evaluate=true`: the new checkpoint and what it was made of on the same rows, through the evaluation room."""

from __future__ import annotations

from pathlib import Path

from mlops_llm import console
from mlops_llm.eval import evaluation, recording
from mlops_llm.eval.comparing import kept_evaluation
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.plan import prepare
from mlops_llm.eval.several import Evaluated
from mlops_llm.record import Grid, NullRun, Result, Run
from mlops_llm.surgery.planning import Planned


def scored(planned: Planned, ref: str, run: Run) -> tuple[Grid, Result]:
    """Score the models that a new checkpoint was made of, then itself, and record all scores, each on its checkpoint.

    What was asked of the same weights before comes from the cache, and an evaluation that the record holds stays the one; of
    others each has a run within this one.

    Args:
        planned: with the rows and metrics.
        ref: of the new checkpoint, which is in the record by now; outside of it its folder is opened.
        run: where the scores of the new checkpoint go.

    Returns:
        All scores as a table, and what the evaluation of the new checkpoint ends with.

    Raises:
        UserError: a model cannot be asked.
    """
    outcomes: dict[str, Outcome] = {}
    folder = Path(planned.request.folder or ".")
    for number, each in enumerate(planned.before or [source for source in planned.sources if source.role == "parent"], 1):
        plan = prepare(planned.request.evaluation(each.ref, str(folder / f"scores-{number}")))
        console.detail(f"scoring {each.ref}")
        found = Evaluated(plan, *evaluation.carried_out(plan, folder / f"scores-{number}"))
        outcomes[each.ref] = found.outcome
        kept_evaluation(found, f"parent-{number}", run)
    own = planned.request.evaluation(str(planned.output) if run.name == NullRun.name else ref, str(folder / "scores"))
    plan = prepare(own)
    console.detail(f"scoring {ref}")
    recording.inputs(plan, run)
    outcomes["the new one"], taken = evaluation.carried_out(plan, folder / "scores")
    return _grid(outcomes), recording.result(plan, outcomes["the new one"], taken, run)


def _grid(outcomes: dict[str, Outcome]) -> Grid:
    names = list(dict.fromkeys(score.name for each in outcomes.values() for score in each.scores))
    rows = [
        [model, *(_said(next((score for score in each.scores if score.name == name), None)) for name in names)]
        for model, each in outcomes.items()
    ]
    return Grid("scores", ["model", *names], rows)


def _said(score: Score | None) -> str:
    if score is None:
        return "-"
    low, high = score.interval or (None, None)
    return f"{score.value:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None else "")
