"""How far raters agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

from mlops_llm.eval.people.words import LEAST, MOST


class Level(Enum):
    """What differences between ratings mean."""

    ordinal = "ordinal"
    """Their order alone."""
    interval = "interval"
    """How far they are apart."""


def alpha(units: Sequence[Sequence[float | None]], level: Level = Level.ordinal) -> float:
    """Krippendorff's alpha (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section E).

    Args:
        units: of each item what each rater said, None where one said nothing.
        level: of the scale.

    Returns:
        1 of perfect agreement, 0 of what chance gives; NaN where no item has two ratings, or all ratings are the same.
    """
    import numpy

    kept = [[value for value in unit if value is not None] for unit in units]
    kept = [unit for unit in kept if len(unit) > 1]
    values = sorted({value for unit in kept for value in unit})
    if len(values) < 2:
        return math.nan
    place = {value: number for number, value in enumerate(values)}
    together = numpy.zeros((len(values), len(values)))
    for unit in kept:
        counts = numpy.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        together += (numpy.outer(counts, counts) - numpy.diag(counts)) / (len(unit) - 1)
    totals = together.sum(axis=0)
    apart = _ordinal(totals) if level is Level.ordinal else numpy.subtract.outer(values, values) ** 2.0
    expected = float((numpy.outer(totals, totals) * apart).sum())
    return 1.0 - (float(totals.sum()) - 1) * float((together * apart).sum()) / expected


def _ordinal(totals: Any) -> Any:
    """Squared differences of ranks, of values that came up so often (the same, section D: ordinal metric)."""
    import numpy

    ranks = numpy.cumsum(totals) - totals / 2
    return numpy.subtract.outer(ranks, ranks) ** 2


def kappa(first: Sequence[int], second: Sequence[int]) -> float:
    """Cohen's kappa of two raters with quadratic weights (Cohen 1968), by scikit-learn.

    Returns:
        NaN of no items, and where both give one and the same rating throughout.
    """
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return math.nan
    # Weights go by the place of a rating among the labels, so that those which nobody gave must be there too.
    return float(cohen_kappa_score(list(first), list(second), labels=list(range(LEAST, MOST + 1)), weights="quadratic"))
