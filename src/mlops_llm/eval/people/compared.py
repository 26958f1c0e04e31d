"""How far two raters of the same answers agree, be they people or models, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.eval.interval import bootstrap, of_mean
from mlops_llm.eval.people.words import LEAST, MOST

_Z = 1.959963984540054
FEW = 4
"""Answers below which an interval says nothing."""


@dataclass(frozen=True)
class Number:
    """A value with its interval; NaN and None where there is none."""

    value: float
    interval: tuple[float, float] | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)


@dataclass(frozen=True)
class Compared:
    """Two ratings of the same answers."""

    count: int
    spearman: Number
    kappa: Number
    difference: Number
    """Mean of the second minus the first."""


def compared(first: Sequence[float], second: Sequence[float]) -> Compared:
    """Compare ratings of 1 to 5.

    Args:
        first: such as the means of what people say; of each answer.
        second: what the other says of it.
    """
    apart = [other - one for one, other in zip(first, second, strict=True)]
    most = MOST - LEAST
    mean = Number(sum(apart) / len(apart), of_mean(apart, most=most, least=-most)) if apart else Number(math.nan)
    return Compared(len(apart), spearman(first, second), _resampled(first, second, kappa), mean)


def spearman(first: Sequence[float], second: Sequence[float]) -> Number:
    """Spearman's rank correlation; its interval is Bonett and Wright's (2000, Psychometrika 65, equation 4).

    Returns:
        NaN of fewer than two pairs, and where one side is constant.
    """
    if len(first) < 2 or len({*first}) < 2 or len({*second}) < 2:
        return Number(math.nan)
    from scipy import stats

    value = float(stats.spearmanr(first, second).statistic)
    if len(first) < FEW or abs(value) >= 1 - 1e-12:
        return Number(value)
    half = _Z * math.sqrt((1 + value**2 / 2) / (len(first) - 3))
    return Number(value, (math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)))


def kappa(first: Any, second: Any) -> float:
    """Cohen's kappa with quadratic weights, of ratings that may lie between two points.

    For whole ratings it is what scikit-learn says; written by moments (Fleiss and Cohen 1973) it needs no table, so that the
    mean of several people has one too (Lin's concordance, 1989).

    Args:
        first: arrays of the same length.
        second: the other's.

    Returns:
        NaN where both are one and the same constant.
    """
    apart = ((first - second) ** 2).mean()
    expected = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    return float(1 - apart / expected) if expected > 0 else math.nan


def _resampled(first: Sequence[float], second: Sequence[float], value: Callable[[Any, Any], float]) -> Number:
    import numpy

    one, other = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    if len(one) == 0:
        return Number(math.nan)
    found = value(one, other)
    if len(one) < FEW or math.isnan(found):
        return Number(found)
    # A resample in which all are equal has no kappa: it agrees as far as the whole does.
    drawn = bootstrap(len(one), lambda places: _or(value(one[places], other[places]), found))
    return Number(found, drawn)


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value
