"""What remains of a training when its last step is done: pictures, the best checkpoint, the closing table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.record import Checkpoint, Registration, Result, Run
from mlops_llm.train.checkpoints import Shelf
from mlops_llm.train.config import Train
from mlops_llm.train.job import Job
from mlops_llm.train.plan import Plan
from mlops_llm.train.scoring import Scoring, newest
from mlops_llm.train.steps import Steps


@dataclass(frozen=True)
class Course:
    """What happened in a training."""

    plan: Plan
    job: Job
    shelf: Shelf
    steps: Steps
    evaluations: Mapping[int, Mapping[str, float]]
    """Step -> numbers of its evaluation."""
    averaged: Mapping[int, Mapping[str, float]]
    """The same of averaged weights."""
    rewards: Mapping[int, float]
    """Step -> mean reward of the answers that were learned from; empty where nothing is rewarded."""
    overfit: int | None
    """Step from which the training is overfit."""
    scoring: Scoring | None
    began: float
    """Seconds since 1970."""
    seconds: float
    """From the first step to the last, with checkpoints."""
    taken: float
    """Seconds of steps and evaluations in this process."""


def pictures(course: Course, run: Run) -> None:
    """Draw loss, reward where there is one, learning rate and speed."""
    from mlops_llm.train import figures

    steps, algo = course.steps, course.plan.settings.algo
    loss = figures.course("loss", algo.loss_name, steps.losses, *_held_out(course, "eval/loss"), course.overfit)
    run.figure("plots/loss.png", loss)
    if algo.rewarded:
        reward = figures.course("reward", "mean of the answers", course.rewards, *_held_out(course, "eval/reward"))
        run.figure("plots/reward.png", reward)
    run.figure("plots/learning_rate.png", figures.line("learning rate", "a step", steps.learning_rates))
    run.figure("plots/tokens_per_second.png", figures.line("speed", "tokens a second", steps.rates))


def _held_out(course: Course, name: str) -> tuple[dict[int, float], dict[int, float], tuple[int, float] | None]:
    """A number of the evaluations by step, that of averaged weights, and the best checkpoint's step with its own."""
    best = course.shelf.best()
    of_best = course.shelf.metrics(best).get(name) if best else None
    raw, averaged = (
        {step: values[name] for step, values in found.items() if name in values}
        for found in (course.evaluations, course.averaged)
    )
    return raw, averaged, (best.step, of_best) if best and of_best is not None else None


def refuse_diverged(course: Course, run: Run, why: str, broken_from: int | None = None) -> None:
    """Say why a training diverged, and what is left of it.

    Args:
        course: what happened.
        run: gets the best checkpoint that is left.
        why: for a person.
        broken_from: step from which on no checkpoint is a good one, where that is known.

    Raises:
        UserError: always.
    """
    shelf, evaluated = course.shelf, _is_decided(course.plan)
    good = [each for each in shelf.checkpoints if not evaluated or shelf.score(each) is not None]
    good = [each for each in good if broken_from is None or each.step < broken_from]
    left = "no good checkpoint was written before"
    if good and (best := shelf.best()):
        run.tags({"best.checkpoint": best.name, "best.reason": f"best before the training diverged: {why}"})
        left = f"the last good checkpoint is {good[-1].name}" + ("" if best == good[-1] else f", the best one is {best.name}")
    elif shelf.checkpoints:
        left = f"{shelf.checkpoints[-1].name} is there, and its {course.plan.settings.best.metric} is no number"
    remedy = "lower trainer.learning_rate, or mend the rows named in the artifacts (spikes/); nothing was registered"
    raise UserError(f"the training diverged: {why}; {left}", run.name, remedy)


def _is_decided(plan: Plan) -> bool:
    """Whether a number of an evaluation chooses the best checkpoint."""
    return plan.validation is not None or plan.settings.best.metric in plan.settings.evaluate.scores()


def _telling(settings: Train) -> list[str]:
    """Metrics of the evaluation that the closing table shows besides the deciding one."""
    names = [settings.algo.best_metric, *settings.algo.telling, *settings.evaluate.scores()]
    return [name for name in names if name != settings.best.metric]


def _moved(before: Mapping[str, float], after: Mapping[str, float], names: Sequence[str]) -> dict[str, str]:
    """Metrics of an evaluation, each with what it was before the training."""
    return {
        name: " -> ".join(f"{values[name]:z.4f}" for values in (before, after) if name in values)
        for name in names
        if name in after
    }


def result(course: Course, run: Run) -> Result:
    """Choose the best checkpoint and say how it went.

    Raises:
        UserError: there is no checkpoint, or of none the deciding number is finite.
    """
    plan, shelf = course.plan, course.shelf
    settings, best = plan.settings, shelf.best()
    if best is None:
        raise UserError("no checkpoint was written")
    score = shelf.score(best)
    if score is None and _is_decided(plan):
        raise UserError(
            f"the training diverged: no checkpoint has a finite {settings.best.metric}",
            run.name,
            "lower trainer.learning_rate; nothing was registered",
        )
    last, why = shelf.checkpoints[-1], _why(course, best)
    run.tags({"best.checkpoint": best.name, "best.reason": why, "digest.weights": last.tags["digest.weights"]})
    values = {
        "name": run.name,
        "best": best.name,
        "score": score,
        "digest.weights": last.tags["digest.weights"],
        "began": course.began,
        "seconds": course.seconds,
        "output": str(settings.output),
    }
    return Result(
        f"{run.name}: trained",
        {key: value for key, value in _table(course, best, why).items() if value is not None},
        values,
        best=Registration(best.name, settings.register_as, "challenger", why) if settings.register_as else None,
        score=score,
        higher_is_better=settings.best.higher_is_better,
        score_name=str(settings.best.metric) if score is not None else "step",
    )


def _why(course: Course, best: Checkpoint) -> str:
    """Why a checkpoint is the best."""
    shelf, how = course.shelf, course.plan.settings.best
    score = shelf.score(best)
    if score is None:
        return f"last of {len(shelf.checkpoints)} checkpoints; nothing was held out to choose by"
    end = "highest" if how.higher_is_better else "lowest"
    return f"{how.metric} {score:z.4f} at step {best.step}, {end} of {shelf.compared} checkpoints"


def _table(course: Course, best: Checkpoint, why: str) -> dict[str, Any]:
    """The closing table; what does not apply is None."""
    plan, shelf, steps, scoring = course.plan, course.shelf, course.steps, course.scoring
    settings, metric, last = plan.settings, str(plan.settings.best.metric), shelf.checkpoints[-1]
    before = course.evaluations.get(0, {})
    return {
        "best checkpoint": f"{best.name} ({why})",
        f"{metric} before": before.get(metric),
        f"{metric} best": shelf.score(best),
        f"{metric} averaged": course.averaged.get(last.step, {}).get(metric),
        **newest(course.evaluations, best.step, [name for name in settings.evaluate.scores() if name != metric]),
        **_moved(before, shelf.metrics(best), _telling(settings)),
        "training loss": f"{steps.losses[min(steps.losses)]:z.4f} -> {steps.mean_loss(settings.trainer.logging_steps):z.4f}",
        **settings.algo.conclude(course.job),
        "steps": last.step,
        "time": f"{console.seconds(course.taken)} (predicted {console.seconds(plan.estimate.seconds)})",
        "answers scored": scoring.said(course.seconds) if scoring and scoring.times else None,
        "checkpoints": len(shelf.checkpoints),
        "registered": f"{settings.register_as} (alias challenger)" if settings.register_as else None,
        "weights digest": last.tags["digest.weights"][:16],
    }
