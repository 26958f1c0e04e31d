"""What an evaluation writes down, and what a person is shown of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.overlap import stamped
from mlops_llm.eval.plan import Plan
from mlops_llm.record import Checkpoint, Grid, Result, Run
from mlops_llm.tracking import prompts

if TYPE_CHECKING:
    from mlops_llm.eval.evaluation import Taken

PREFIX = "score/"
"""What the names of scores begin with in the record."""


def inputs(plan: Plan, run: Run) -> None:
    """Name the model and the rows."""
    if plan.subject:
        checkpoint = plan.subject.checkpoint
        run.uses(checkpoint)
        run.tags({"model": plan.settings.model, "template.source": plan.subject.template_source, **checkpoint.tags})
    else:
        run.tags({"model": plan.settings.model})
    if plan.questions:
        run.input(plan.questions.as_input())
    if plan.settings.judge is not None:
        prompts.used(run, plan.settings.judge.name, plan.settings.judge.text())


def result(plan: Plan, outcome: Outcome, taken: Taken, run: Run) -> Result:
    """Record what was found and say it."""
    checkpoint = plan.subject.checkpoint if plan.subject else None
    step = checkpoint.step if checkpoint else 0
    for score in outcome.scores:
        _record(score, step, checkpoint, plan, run)
    run.metrics(_numbers(outcome, taken), step)
    if plan.settings.judge is not None:
        run.metrics({f"perf/judge_{name}": value for name, value in plan.settings.judge.numbers().items()}, step)
    if taken.overlap and plan.questions:
        run.metrics(taken.overlap.metrics(), step, checkpoint, "evaluation")
        run.artifact("overlap.json", taken.overlap.table(plan.questions.asked, plan.questions.rows))
    signatures = {f"metric.{each.name}": each.signature for each in outcome.scores if each.signature}
    run.tags(signatures)
    if plan.settings.save_outputs and outcome.samples:
        run.artifact("samples.json", table(outcome))
    best = outcome.scores[0] if outcome.scores else None
    return Result(
        f"{outcome.title}: evaluated",
        _table(outcome),
        {"scores": {each.name: each.value for each in outcome.scores}, "failures": dict(outcome.failures)},
        [Grid("scores", ("score", "value", "95 %", "of"), [_row(each) for each in outcome.scores])],
        score=best.value if best and best.higher_is_better is not None else None,
        higher_is_better=bool(best and best.higher_is_better),
        score_name=f"{PREFIX}{best.name}" if best else "",
    )


def _record(score: Score, step: int, checkpoint: Checkpoint | None, plan: Plan, run: Run) -> None:
    """A score and its interval, on the model and the rows."""
    if not math.isfinite(score.value):
        return
    values = {f"{PREFIX}{score.name}": score.value}
    if score.interval:
        values |= {f"{PREFIX}{score.name}_low": score.interval[0], f"{PREFIX}{score.name}_high": score.interval[1]}
    if score.seen and score.seen.rest is not None:
        values[f"{PREFIX}{score.name}_unseen"] = score.seen.rest
    run.metrics(values, step, checkpoint, "evaluation" if plan.questions else None)


def _numbers(outcome: Outcome, taken: Taken) -> dict[str, float]:
    seconds = [each.seconds for each in outcome.samples if each.seconds]
    numbers = {
        "samples/total": float(len(outcome.samples)),
        "samples/succeeded": float(outcome.succeeded),
        "samples/failed": float(len(outcome.samples) - outcome.succeeded),
        "perf/seconds": taken.seconds,
        "perf/peak_memory_bytes": float(taken.peak),
    }
    if seconds:
        numbers["perf/seconds_a_sample"] = sum(seconds) / len(seconds)
        numbers["perf/tokens_per_second"] = sum(each.tokens for each in outcome.samples) / sum(seconds)
    if taken.gpu is not None:
        numbers["perf/peak_gpu_memory_bytes"] = float(taken.gpu)
    return numbers


def table(outcome: Outcome) -> dict[str, list[Any]]:
    """Every sample as columns."""
    names = list(dict.fromkeys(name for each in outcome.samples for name in each.scores))
    samples = outcome.samples
    columns: dict[str, list[Any]] = {
        "row": [each.place + 1 for each in samples],
        "prompt": [each.prompt for each in samples],
        "answer": [each.answer for each in samples],
        "reference": ["\n".join(each.references) for each in samples],
    }
    columns |= {name: [each.scores.get(name) for each in samples] for name in names}
    optional = {
        "label": [each.label for each in samples],
        "comment": [each.comment or None for each in samples],
        "failure": [each.failure.kind.value if each.failure else None for each in samples],
        "cause": [each.failure.cause if each.failure else None for each in samples],
        "seen": [each.was_seen for each in samples],
        "flags": [", ".join(each.flags) or None for each in samples],
    }
    columns |= {name: values for name, values in optional.items() if any(value is not None for value in values)}
    return columns | {
        "seconds": [round(each.seconds, 4) for each in samples],
        "tokens": [each.tokens for each in samples],
        "cut": [each.cut for each in samples],
    }


def _row(score: Score) -> list[Any]:
    low, high = score.interval or (math.nan, math.nan)
    most = f" / {score.most:g}" if score.most else ""
    said = stamped(score.value, score.seen, most)
    return [score.name, said, f"{low:.4g} to {high:.4g}" if score.interval else "-", score.count]


def _table(outcome: Outcome) -> dict[str, Any]:
    failures = ", ".join(f"{count} {kind}" for kind, count in outcome.failures.items())
    samples = f"{outcome.succeeded} succeeded, {len(outcome.samples) - outcome.succeeded} failed" if outcome.samples else ""
    return {
        "model": outcome.model,
        "dataset": outcome.dataset,
        "samples": samples + (f" ({failures})" if failures else ""),
        **outcome.facts,
    }
