"""What an evaluation writes down, and what a person is shown of it."""

from __future__ import annotations

import json
import math
import re

from mlops_llm import component
from mlops_llm.eval import figures, shown
from mlops_llm.eval.benchmarks.seen import questions
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.page import page
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.report import facts
from mlops_llm.eval.taken import Taken, performance
from mlops_llm.record import Checkpoint, Result, Run
from mlops_llm.tracking import prompts

PREFIX = "score/"
"""What the names of scores begin with in the record."""
BESIDE = ("_low", "_high", "_unseen")
"""How numbers end that stand beside a score."""
_LOWER, _NEITHER = ("loss", "perplexity", "bits_per_byte", "seconds"), ("entropy", "length")
IDENTITY = "evaluation.digest"
"""Tag of a run: what its scores depend on, see `Plan.identity`."""
TABLE, PAGE = "eval_results.json", "evaluation.html"
"""Artifacts: every answer as a table, which MLflow's evaluation view opens, and the page for a person."""


def higher(name: str) -> bool | None:
    """Whether larger values of a number are better: as its metric says, else by the name; None of what is neither."""
    for cls in component.groups().get("metric", {}).values() if name.startswith(PREFIX) else ():
        names = getattr(cls, "names", ())  # of some metrics a property, which depends on settings
        if isinstance(names, tuple) and name.removeprefix(PREFIX) in names:
            return cls.higher_is_better  # type: ignore[attr-defined, no-any-return]
    return None if name.endswith(_NEITHER) else not name.endswith(_LOWER)


def inputs(plan: Plan, run: Run) -> None:
    """Name the model and the rows."""
    if plan.subject:
        checkpoint = plan.subject.checkpoint
        if checkpoint:
            run.uses(checkpoint)
        told = {"model": plan.settings.model, "template.source": plan.subject.template_source, IDENTITY: plan.identity}
        run.tags({**told, **(checkpoint.tags if checkpoint else {})})
    else:
        run.tags({"model": plan.settings.model})
    if plan.ability:
        run.tags({"ability": plan.ability})
    rows(plan, run)


def rows(plan: Plan, run: Run) -> None:
    """Name what is asked, and the template of the judge."""
    if plan.questions:
        run.input(plan.questions.as_input())
    for one in plan.benchmarks:
        if one.local:
            run.input(one.as_input(plan.settings.limit))
    if plan.settings.judge is not None:
        prompts.used(run, plan.settings.judge.name, plan.settings.judge.text())


def result(plan: Plan, outcome: Outcome, taken: Taken, run: Run, *, pictures: bool = True) -> Result:
    """Record what was found and say it; one of many like it needs no pictures of its own."""
    checkpoint = plan.subject.checkpoint if plan.subject else None
    step = checkpoint.step if checkpoint else 0
    benchmarks = [one.as_input(plan.settings.limit).context for one in plan.benchmarks if one.local]
    for number, score in enumerate(outcome.scores):
        is_own = number < len(outcome.scores) - taken.of_benchmarks
        named_so = (name for name in benchmarks if f"{score.name}/".startswith(f"{name}/"))
        _record(score, step, checkpoint, "evaluation" if is_own else next(named_so, None), run)
    run.metrics(_numbers(outcome, taken), step, checkpoint, "evaluation" if plan.questions else None)
    if plan.settings.judge is not None:
        run.metrics({f"perf/judge_{name}": value for name, value in plan.settings.judge.numbers().items()}, step)
    _overlaps(plan, taken, step, checkpoint, run)
    signed = [each for each in outcome.scores if each.signature]
    run.tags({f"metric.{named(each.name).removeprefix(PREFIX)}": each.signature for each in signed})
    if plan.settings.save_outputs and outcome.samples:
        run.artifact(TABLE, shown.columns(outcome))
        run.answers(shown.answers(outcome, plan.settings.publish.rows), checkpoint)
    for name, tables in taken.results.items():
        run.artifact(f"benchmarks/{_file(name)}.json", json.dumps(tables, ensure_ascii=False, indent=2, default=str))
    for name, grid in outcome.tables.items():
        run.artifact(name, {column: [row[place] for row in grid.rows] for place, column in enumerate(grid.columns)})
    for name, figure in figures.figures(outcome).items() if pictures else ():
        run.figure(name, figure)
    run.artifact(PAGE, page(outcome, texts=plan.settings.save_outputs))
    run.artifact(facts.ARTIFACT, json.dumps(facts.of_run(plan, outcome, taken, run.name), ensure_ascii=False))
    decisive = shown.overall(outcome) or next((each for each in outcome.scores if each.higher_is_better is not None), None)
    return Result(
        f"{outcome.title}: {'evaluated' if outcome.succeeded or not outcome.samples else 'no sample succeeded'}",
        shown.table(outcome),
        {
            "scores": {each.name: each.value for each in outcome.scores},
            "intervals": {each.name: each.interval for each in outcome.scores if each.interval},
            "failures": dict(outcome.failures),
        },
        shown.lines(outcome, shown.SAMPLES if plan.settings.save_outputs else 0),
        failed=bool(outcome.samples) and not outcome.succeeded,
        score=decisive.value if decisive else None,
        higher_is_better=bool(decisive and decisive.higher_is_better),
        score_name=named(decisive.name) if decisive else "",
    )


def _overlaps(plan: Plan, taken: Taken, step: int, checkpoint: Checkpoint | None, run: Run) -> None:
    """Record what of the questions the model was trained on."""
    if taken.overlap and plan.questions:
        run.metrics(taken.overlap.metrics(), step, checkpoint, "evaluation")
        table = taken.overlap.table(plan.questions.asked, plan.questions.rows, texts=plan.settings.save_outputs)
        run.artifact("overlap.json", table)
    for name, (checked, samples) in taken.overlaps.items():
        label = named(name).removeprefix(PREFIX)
        run.metrics({key.replace("/", f"/{label}/", 1): share for key, share in checked.metrics().items()}, step, checkpoint)
        table = checked.table(questions(samples), [each.place for each in samples], texts=plan.settings.save_outputs)
        run.artifact(f"overlap/{_file(name)}.json", table)


def _file(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.-]+", "_", name).strip("_")


def named(score: str) -> str:
    """A score's name in the record, of characters that MLflow takes: `gsm8k[50]/pass@1` is `score/gsm8k:50/pass_at_1`."""
    plain = re.sub(r"\[([^\]]*)\]", r":\1", score).replace("@", "_at_")
    return PREFIX + re.sub(r"[^/\w.\- :]", "_", plain)


def _record(score: Score, step: int, checkpoint: Checkpoint | None, context: str | None, run: Run) -> None:
    """A score and its interval, on the model and the rows."""
    if not math.isfinite(score.value):
        return
    name = named(score.name)
    values = {name: score.value}
    if score.interval:
        values |= {f"{name}_low": score.interval[0], f"{name}_high": score.interval[1]}
    if score.seen and score.seen.rest is not None:
        values[f"{name}_unseen"] = score.seen.rest
    run.metrics(values, step, checkpoint, context)


def _numbers(outcome: Outcome, taken: Taken) -> dict[str, float]:
    counts = {"total": len(outcome.samples), "succeeded": outcome.succeeded, "failed": len(outcome.samples) - outcome.succeeded}
    return {
        **{f"samples/{name}": float(count) for name, count in counts.items()},
        **{f"perf/{name}": value for name, value in performance(outcome, taken).items()},
    }
