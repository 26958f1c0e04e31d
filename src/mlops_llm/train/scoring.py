"""Scores of a model's answers while it is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.data.ref import open_dataset
from mlops_llm.errors import UserError
from mlops_llm.eval import questions
from mlops_llm.eval.metric import Item
from mlops_llm.eval.questions import Questions
from mlops_llm.eval.rendering import prompted
from mlops_llm.models.load import Task
from mlops_llm.record import Run
from mlops_llm.train.answers import answers
from mlops_llm.train.config import Train
from mlops_llm.train.evaluate import PREFIX

if TYPE_CHECKING:
    from mlops_llm.train.plan import Part, Plan

OTHERS = "evaluate.dataset"
"""Setting that names which rows are asked."""


def check(settings: Train) -> None:
    """See that the model gives answers, where they are to be scored.

    Raises:
        UserError: it does not.
    """
    if settings.evaluate.every and settings.algo.task is Task.reward:
        raise UserError("is given, but algo=reward trains a model that gives no answers", "evaluate.every", "leave it out")


def prepare(settings: Train, tokenizer: Any, window: int | None, validation: Part | None) -> Questions | None:
    """The questions whose answers are scored; None where none are.

    Args:
        settings: all of them.
        tokenizer: of the model, with its chat template.
        window: tokens that the model takes in, where it says so.
        validation: the held-out part.

    Raises:
        UserError: there are no rows, one has no reference, or a prompt leaves no room for an answer.
    """
    how = settings.evaluate
    if not how.every:
        return None
    if how.dataset:
        source = open_dataset(how.dataset, settings.read)
        found = questions.first(source, range(len(source.rows)), (), how.samples, OTHERS)
    elif validation:
        found = questions.first(validation.source, validation.rows, settings.algo.kinds, how.samples, OTHERS)
    else:
        raise UserError("nothing is held out to ask", "evaluate.every", "name rows: evaluate.dataset=REF")
    lengths = [len(tokenizer(prompted(tokenizer, one), add_special_tokens=False)["input_ids"]) for one in found.asked]
    full = [each for each in lengths if window and each + how.max_new_tokens > window]
    if full:
        what = f"{len(full)} of {len(lengths)} prompts ({max(full)} tokens) leave no room for it in the model's {window}"
        room = (window or 0) - max(full)
        remedy = f"take evaluate.max_new_tokens={room}, or other rows" if room > 0 else "take rows with shorter prompts"
        raise UserError(what, "evaluate.max_new_tokens", remedy)
    for metric in how.metrics().values():
        metric.check([Item("", one.references) for one in found.asked])
    return found


class Scoring:
    """Asks the model in training some questions and scores its answers."""

    def __init__(self, plan: Plan, found: Questions, model: Any, run: Run) -> None:
        """Keep whom to ask what, and where to write the answers."""
        self._how, self._questions = plan.settings.evaluate, found
        self._tokenizer, self._model, self._run = plan.tokenizer, model, run
        self._metrics = self._how.metrics()
        self.times = 0
        """How often answers were scored."""
        self.seconds = 0.0
        """How long that took."""

    def due(self, step: int, last: int) -> bool:
        """Whether answers are scored after a step."""
        return step % int(self._how.every or 1) == 0 or step >= last

    def at(self, step: int, of: str = "") -> dict[str, float]:
        """Keep answers as a table; return name in the record -> score, NaN where weights are not finite.

        Args:
            step: optimizer steps done.
            of: what follows the step in the table's name, where the weights are not those in training.
        """
        began = time.perf_counter()
        values = self._scored(step, of) if _is_finite(self._model) else dict.fromkeys(self._how.scores(), math.nan)
        self.times, self.seconds = self.times + 1, self.seconds + time.perf_counter() - began
        return values

    def _scored(self, step: int, of: str) -> dict[str, float]:
        asked = self._questions.asked
        given = answers(self._model, self._tokenizer, asked, self._how.max_new_tokens)
        items = [Item(answer, one.references) for answer, one in zip(given, asked, strict=True)]
        table: dict[str, list[Any]] = {
            "prompt": [one.text for one in asked],
            "answer": given,
            "reference": ["\n".join(one.references) for one in asked],
        }
        values, signatures = dict[str, float](), dict[str, str]()
        for name, metric in self._metrics.items():
            scores = metric.score(items)
            signatures[f"metric.{name}"] = scores.signature
            values |= {f"{PREFIX}{each}": value for each, value in scores.total.items()}
            table |= {each: [round(value, 4) for value in items] for each, items in scores.items.items()}
        if not self.times:
            self._run.tags(signatures)
        self._run.artifact(f"scores/step-{step:05d}{of}.json", table)
        return values

    def said(self, seconds: float) -> str:
        """What the scoring took of a training of some seconds, checkpoints included, for a person."""
        share = self.seconds / seconds if seconds else 0.0
        whole = f"{share:.0%} of {console.seconds(seconds)} with checkpoints"
        return f"{self.times} times {len(self._questions.asked)} answers, {console.seconds(self.seconds)} ({whole})"


def _is_finite(model: Any) -> bool:
    import torch

    return all(bool(torch.isfinite(each.detach()).all()) for each in model.parameters())


def newest(evaluated: Mapping[int, Mapping[str, float]], best: int, names: Iterable[str]) -> dict[str, str]:
    """Each score before the training and at the newest step up to the best one at which answers were scored; that is named."""
    found = {}
    for name in names:
        steps = [step for step in sorted(evaluated) if step <= best and name in evaluated[step]]
        if steps:
            ends = [f"{evaluated[step][name]:.4f}" for step in dict.fromkeys((steps[0], steps[-1]))]
            found[name] = f"{' -> '.join(ends)} (step {steps[-1]})"
    return found
