"""The number that decides which checkpoint is the best: whether an evaluation will give it, known before step 1."""

from __future__ import annotations

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.train.config import Mode, Train
from mlops_llm.train.evaluate import PREFIX

_OF_EXPERTS = "eval/aux_loss"
"""TRL's number of models that are made of experts, and only of those; whether a model is one, shows when it is loaded."""


def check(settings: Train) -> None:
    """See that an evaluation gives the deciding number; where that is a score, for every checkpoint.

    What only some models or rows give passes here, and `checkpoints.Shelf.check` looks for it in the first evaluation.

    Raises:
        UserError: none gives it, or checkpoints would lack it.
    """
    wanted, scores = str(settings.best.metric), settings.evaluate.scores()
    is_score = wanted.startswith(PREFIX)
    if is_score and not settings.evaluate.every:
        remedy = f"score them: evaluate.every={settings.trainer.eval_steps}"
        raise UserError(f"no evaluation gives '{wanted}', since no answers are scored", "best.metric", remedy)
    names = [*scores] if is_score else [*settings.algo.evaluated(settings), *scores]
    if wanted not in (*names, _OF_EXPERTS):
        raise UserError(f"no evaluation gives '{wanted}'{near(wanted, names)}", "best.metric", f"one of: {', '.join(names)}")
    if is_score:
        _check_steps(settings)
        if settings.best.mode is Mode.auto:
            settings.best.mode = Mode.max if scores[wanted] else Mode.min


def _check_steps(settings: Train) -> None:
    every, saved = int(settings.evaluate.every or 1), settings.trainer.save_steps
    if saved % every:
        raise UserError(
            f"checkpoints would lack {settings.best.metric}: {every} does not divide trainer.save_steps={saved}",
            "evaluate.every",
            f"take evaluate.every={nearest(every, saved)}, or change trainer.save_steps",
        )


def nearest(number: int, total: int) -> int:
    """The divisor of `total` that is nearest to a number; the larger of two."""
    divisors = [each for each in range(1, total + 1) if total % each == 0]
    return min(divisors, key=lambda each: (abs(each - number), -each))
