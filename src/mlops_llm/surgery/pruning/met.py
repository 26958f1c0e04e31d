"""Whether the model was trained on the rows by which it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_llm.models import digested
from mlops_llm.surgery.planning import Source

if TYPE_CHECKING:
    from mlops_llm.eval.questions import Question

_UNKNOWN = "unknown whether the model was trained on them"


@dataclass(frozen=True)
class Met:
    """What is known of it."""

    share: float | None
    """Of the rows that the model was trained on; None where that is not known."""
    said: str
    """The same for a person."""


def seen_in_training(source: Source, asked: Sequence[Question]) -> Met:
    """Look for rows among all that the model was trained on, as an evaluation does.

    Args:
        source: the model.
        asked: what the rows ask; none of texts that are no rows.
    """
    from mlops_llm.eval.overlap import Overlap
    from mlops_llm.eval.search import of_model

    place = source.files.place
    found = of_model([asked], place, digested.weights_digest(place), Overlap()) if asked else None
    if not found:
        return Met(None, _UNKNOWN)
    (one,) = found
    met = sum(map(bool, one.trained))
    if met:
        least = " at least" if one.unknown else ""
        return Met(met / len(asked), f"the model was trained on {met} of them{least}: it may do worse on others")
    return Met(None, _UNKNOWN) if one.unknown else Met(0.0, "the model was trained on none of them")
