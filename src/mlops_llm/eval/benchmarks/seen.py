"""Which items of a benchmark the model met in training, and what its scores are without them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mlops_llm.data.kinds import Kind
from mlops_llm.errors import UserError
from mlops_llm.eval.outcome import Sample, Score
from mlops_llm.eval.overlap import stamp
from mlops_llm.eval.questions import Question, question

if TYPE_CHECKING:
    from mlops_llm.eval.benchmarks.running import Found


@dataclass(frozen=True)
class Part:
    """What a score of a benchmark is made of: the mean of its items, or over the tasks of a group."""

    label: str
    """Name of the items' values."""
    tasks: Sequence[str]
    by_size: bool = True
    """Whether a task counts by its number of items; else all of a group count alike."""


def stamped(found: Found, seen: Sequence[bool | None]) -> Found:
    """A benchmark's findings with what the model was trained on; a score that is no mean of its items is left as it is.

    Args:
        found: what the benchmark found.
        seen: whether the model was trained on each of its items.
    """
    samples = [dataclasses.replace(one, was_seen=was) for one, was in zip(found.samples, seen, strict=True)]
    parts = found.parts
    scores = [_stamped(each, parts[each.name], samples) if each.name in parts else each for each in found.scores]
    return dataclasses.replace(found, samples=samples, scores=scores)


def questions(samples: Sequence[Sample]) -> list[Question]:
    """What the items ask, without worked examples; tasks may ask the same and differ in what they count as right."""
    return [Question([{"role": "user", "content": one.asked or one.prompt}], None, ()) for one in samples]


def asked(row: Mapping[str, Any]) -> str:
    """What a benchmark's row asks, as the same row of a dataset would; empty where its form is none that is known."""
    try:
        return question(dict(row), Kind.eval, "").text
    except UserError:
        return ""


def _stamped(score: Score, part: Part, samples: Sequence[Sample]) -> Score:
    tasks = set(part.tasks)
    there = [one for one in samples if one.task in tasks and part.label in one.scores]

    def value(places: Sequence[int]) -> float:
        """As lm-eval adds tasks up (`aggregate_subtask_metrics`); a task without items is left out."""
        by_task = dict[str, list[float]]()
        for each in places:
            by_task.setdefault(there[each].task, []).append(there[each].scores[part.label])
        if part.by_size:
            return math.fsum(item for items in by_task.values() for item in items) / len(places)
        return fmean(fmean(items) for items in by_task.values())

    if not there or not math.isclose(value(range(len(there))), score.value, abs_tol=1e-9):
        return score
    return dataclasses.replace(score, seen=stamp(value, [one.was_seen for one in there]))
