"""Models compared by their evaluations: what is not in the record yet is evaluated, each in a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mlops_llm.data.preview import safe
from mlops_llm.data.ref import record
from mlops_llm.eval import conditions, recording
from mlops_llm.eval.comparison import Comparison, Cost
from mlops_llm.eval.comparison_record import recorded
from mlops_llm.eval.evaluation import forget
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.metrics.latency import Latency
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.recorded import Recorded, same, timed
from mlops_llm.eval.several import Evaluated, evaluated
from mlops_llm.eval.several import models as models_of
from mlops_llm.eval.speed import Speed, measured, restless
from mlops_llm.eval.taken import performance
from mlops_llm.eval.versus import compared
from mlops_llm.record import Result, Run
from mlops_llm.tracking.ledger import RunRow

_DIGITS = 12


def compare(plans: list[Plan], run: Run, lang: Lang, *, measure: bool = False) -> Result:
    """Ask all models, compare them, record it.

    Args:
        plans: of the same rows, see `several.plans`.
        run: open.
        lang: of the conclusion.
        measure: measure speed and memory anew.

    Raises:
        UserError: a model cannot be opened, or a server fails.
    """
    _inputs(plans, run)
    folder = Path(str(plans[0].settings.output or "."))
    speeds = measured(plans, back=True) if measure else None
    found, kept = list[Evaluated](), list[RunRow | None]()
    for each in evaluated(plans, folder):
        found.append(each)
        kept.append(kept_evaluation(each, str(len(found)), run))
    costs, unequal = _costs_of(found, kept, speeds)
    of_run = [each.name if each else "" for each in kept]
    models = [replace(each, evaluation=name) for each, name in zip(models_of(found, costs), of_run, strict=True)]
    first = plans[0]
    asked = found[0].outcome.title.removeprefix(f"{first.model} on ")
    before = [each.ref for each in found if not each.taken.is_new]
    why = f"answers of {', '.join(before)} were given before; cache=refresh asks all anew" if before else ""
    latencies = (name for each in first.metrics.values() if isinstance(each, Latency) for name in each.names)
    made = compared(
        models,
        f"{len(models)} models on {asked}",
        found[0].outcome.dataset or asked,
        latencies=dict.fromkeys(latencies, why),
        unequal=unequal,
        warnings=restless([each.ref for each in found], speeds) if speeds else (),
        about=_about(first, found[0].outcome, run.name),
        seed=first.settings.seed,
    )
    texts = first.settings.save_outputs
    if not texts:
        for place in folder.glob("model-*"):
            forget(place)
    return recorded(made, run, lang, texts=texts, pages=_pages([each for each in kept if each]))


def _about(plan: Plan, outcome: Outcome, run: str) -> dict[str, str]:
    """How models were asked, for a person who has only the page."""
    judge, rows = plan.settings.judge, plan.questions
    told = {"dataset": outcome.dataset} if rows else {}
    told |= {"digest of the rows": rows.as_input().digests["canonical"][:_DIGITS]} if rows else {}
    told |= {"engine": outcome.engine, "sampling": outcome.facts.get("sampling", "")}
    told |= {"judge": f"{judge.name}, version {judge.version()[:_DIGITS]}"} if judge is not None else {}
    told |= {"run": run, "compared": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")}
    return {name: value for name, value in told.items() if value}


def compare_runs(found: Sequence[Recorded], made: Comparison, run: Run, lang: Lang) -> Result:
    """Record a comparison of evaluations that the record held before.

    Args:
        found: the evaluations.
        made: what `recorded.side_by_side` made of them.
        run: open.
        lang: of the conclusion.
    """
    run.tags({"models": ", ".join(each.ref for each in made.models), "evaluations": ", ".join(each.run.name for each in found)})
    texts = all(each.facts["texts"] for each in found)
    about = {**made.about, "run": run.name}
    return recorded(replace(made, about=about), run, lang, texts=texts, pages=_pages([each.run for each in found]))


def kept_evaluation(one: Evaluated, name: str, run: Run) -> RunRow | None:
    """The run of a model's evaluation: one of before that found the same, else one within this run.

    Args:
        one: the evaluation, which is carried out.
        name: of the new run within this one.
        run: open.

    Returns:
        Its row; None outside of a record.
    """
    store, identity = record(), one.plan.identity
    row = same(store, identity, one.outcome) if store else None
    if row is None:
        with run.child(name, {"choice.op": "score", "model": one.ref, "models": "[]"}) as inner:
            inner.tags({"stage": "eval"})
            recording.inputs(one.plan, inner)
            # What the process held before is counted in the peak of its memory.
            recording.result(one.plan, one.outcome, replace(one.taken, peak=0, gpu=None), inner)
        row = same(store, identity, one.outcome) if store else None
    return row


def _costs_of(
    found: Sequence[Evaluated], kept: Sequence[RunRow | None], speeds: Sequence[Speed] | None
) -> tuple[list[Cost], str]:
    """What models take, measured by itself, in evaluations of the record, or just now; else why it does not compare."""
    if speeds:
        taken = [Cost(seconds=each.seconds, tokens=each.tokens, memory=each.memory, between=each.between) for each in speeds]
        return taken, ""
    why = conditions.why_not({each.ref: row for each, row in zip(found, kept, strict=True)})
    costs = [Cost()] * len(found)
    if not why:
        costs = [timed(Cost(), row) for row in kept if row]
    elif all(each.taken.is_new for each in found):
        took = [performance(each.outcome, each.taken) for each in found]
        costs, why = [Cost(seconds=each.get("seconds_a_sample"), tokens=each.get("tokens_per_second")) for each in took], ""
    if why:
        return costs, f"{why}; op.measure=true measures each model by itself"
    shared = any(each.memory is None for each in costs)
    return (
        costs,
        "models were asked in one process, which had one memory; op.measure=true measures each by itself" if shared else "",
    )


def _pages(runs: Sequence[RunRow]) -> list[str]:
    """MLflow's own pages: the numbers of all evaluations side by side, and the answers of the first with those of another."""
    store = record()
    if store is None or len(runs) < 2:
        return []
    first, told = runs[0], [("numbers", store.link_to_compare(runs[0].experiment, [each.id for each in runs]))]
    told += [
        (f"answers of {first.name} and {each.name}", store.link_to_answers(first.experiment, first.id, each.id))
        for each in runs[1:]
        if each.experiment == first.experiment
    ]
    return ["[bold]side by side in MLflow[/]", *(f"  {safe(what)}: {safe(link)}" for what, link in told)]


def _inputs(plans: list[Plan], run: Run) -> None:
    run.tags({"models": ", ".join(each.settings.model for each in plans)})
    for plan in plans:
        if plan.subject and (checkpoint := plan.subject.checkpoint):
            run.uses(checkpoint)
    recording.rows(plans[0], run)
