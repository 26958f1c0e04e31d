"""Knowing when to stop: rules on the losses and scores so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Optional

from mlops_llm.errors import UserError


@dataclass
class Overfit:
    """When a training is said to have learned too much, and when it stops."""

    evaluations: int = 3
    """Evaluations in a row over which the held-out loss rises while the training loss falls."""
    worse: int = 3
    """Times in a row that the deciding metric gets worse."""
    stop: bool = False
    """Stop there; else later checkpoints are marked and the training goes on."""
    patience: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Stop after as many evaluations without a better value of the deciding metric (early stopping); null never does."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("evaluations", "worse"):
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"overfit.{name}", "give a whole number from 1")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"is {self.patience}", "overfit.patience", "give a whole number from 1, or null")


Curve = Mapping[int, float]
"""Step -> value."""


def reason(train: Curve, held_out: Curve, score: Curve, higher_is_better: bool, how: Overfit) -> str:
    """Why a training is overfit at its newest evaluation; empty where it is not.

    Args:
        train: loss of every step.
        held_out: loss of every evaluation.
        score: the deciding metric of every evaluation.
        higher_is_better: its direction.
        how: how many evaluations each rule looks at.
    """
    steps = sorted(held_out)[-how.evaluations - 1 :]
    if len(steps) > how.evaluations and steps[0] > 0:
        learned = [_mean(train, before, after) for before, after in pairwise([2 * steps[0] - steps[1], *steps])]
        rises = all(held_out[after] > held_out[before] for before, after in pairwise(steps))
        if rises and None not in learned and all(after < before for before, after in pairwise(learned)):  # type: ignore[operator]
            return (
                f"the held-out loss rose {how.evaluations} times in a row ({held_out[steps[0]]:.4f} at step {steps[0]}, "
                f"{held_out[steps[-1]]:.4f} at step {steps[-1]}) while the training loss fell"
            )
    steps = sorted(score)[-how.worse - 1 :]
    sign = 1 if higher_is_better else -1
    if len(steps) > how.worse and all(sign * score[after] < sign * score[before] for before, after in pairwise(steps)):
        ends = f"{score[steps[0]]:.4f} at step {steps[0]}, {score[steps[-1]]:.4f} at step {steps[-1]}"
        return f"the deciding metric got worse {how.worse} times in a row ({ends})"
    return ""


def first(train: Curve, held_out: Curve, score: Curve, higher_is_better: bool, how: Overfit) -> tuple[int, str] | None:
    """The first evaluation at which a training was overfit, with the reason; None where it never was."""
    for last in sorted({*held_out, *score}):
        losses, held, scores = (
            {step: value for step, value in curve.items() if step <= last} for curve in (train, held_out, score)
        )
        if found := reason(losses, held, scores, higher_is_better, how):
            return last, found
    return None


def exhausted(score: Curve, higher_is_better: bool, patience: int | None) -> str:
    """Why no better value is waited for any longer; empty where it is."""
    steps = sorted(step for step, value in score.items() if math.isfinite(value))
    if patience is None or len(steps) <= patience:
        return ""
    sign = 1 if higher_is_better else -1
    best = max(steps, key=lambda step: (sign * score[step], -step))
    since = sum(step > best for step in steps)
    return f"no better value in {since} evaluations since step {best} (overfit.patience)" if since >= patience else ""


def _mean(losses: Curve, after: int, last: int) -> float | None:
    """Mean of the losses of steps after one, up to another."""
    found = [loss for step, loss in losses.items() if after < step <= last]
    return sum(found) / len(found) if found else None
