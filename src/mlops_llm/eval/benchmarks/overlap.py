"""Which items of a benchmark the model met in training, and what its scores are without them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlops_llm.data.kinds import Kind
from mlops_llm.errors import UserError
from mlops_llm.eval.outcome import Sample, Score
from mlops_llm.eval.overlap import Checked, Overlap, of_model, stamp
from mlops_llm.eval.questions import Question, question
from mlops_llm.models.ref import Place

if TYPE_CHECKING:
    from mlops_llm.eval.benchmarks.running import Found


def stamped(found: Found, place: Place | None, weights: str, how: Overlap) -> tuple[Found, Checked | None]:
    """A benchmark's findings with what the model was trained on; a score that is no mean of its items is left as it is.

    Arguments as those of `overlap.of_model`.
    """
    checked = of_model(questions(found.samples), place, weights, how)
    if checked is None:
        return found, None
    seen = checked.seen
    samples = [dataclasses.replace(one, was_seen=was) for one, was in zip(found.samples, seen, strict=True)]
    scores = [_stamped(each, found.samples, seen) for each in found.scores]
    return dataclasses.replace(found, samples=samples, scores=scores), checked


def questions(samples: Sequence[Sample]) -> list[Question]:
    """What the items ask, without worked examples; tasks may ask the same and differ in what they count as right."""
    return [Question([{"role": "user", "content": one.asked or one.prompt}], None, ()) for one in samples]


def asked(row: Mapping[str, Any]) -> str:
    """What a benchmark's row asks, as the same row of a dataset would; empty where its form is none that is known."""
    try:
        return question(dict(row), Kind.eval, "").text
    except UserError:
        return ""


def _stamped(score: Score, samples: Sequence[Sample], seen: Sequence[bool | None]) -> Score:
    label = next((name for one in samples for name in one.scores if score.name.endswith(f"/{name}")), "")
    values = [one.scores.get(label) for one in samples]
    there = [each for each in values if each is not None]
    # A group of a benchmark's tasks has fewer items.
    is_mean = len(there) == score.count > 0 and math.isclose(math.fsum(there) / len(there), score.value, abs_tol=1e-9)
    return dataclasses.replace(score, seen=stamp(values, seen)) if is_mean else score
