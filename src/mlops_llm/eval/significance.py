"""Whether two models differ on the same samples, or only by chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.eval.interval import FEW, RESAMPLES, of_mean

LEVEL, POWER = 0.05, 0.8
"""A difference is significant where p is at most the one; a sample is large enough that finds it with the other probability."""
DRAWS, DRAWS_OF_TOTALS = 10_000, 2_000
"""Exchanges that are drawn where there are too many to try each."""
EXACT = 12
"""Samples that differ, up to which every exchange is tried."""
_CELLS = 4_000_000
"""Numbers of a drawn block: what is drawn takes tens of megabytes, however many samples there are."""


@dataclass(frozen=True)
class Paired:
    """How two models differ on the samples that both have a value of."""

    difference: float
    """The first one's minus the second one's."""
    interval: tuple[float, float] | None
    """95 %, of samples that are drawn in pairs; None where too few are there to say."""
    p: float
    """Probability of a difference at least as large, if it were chance which of the models gave which answer."""
    count: int
    """Samples."""
    spread: float
    """Standard deviation of the difference of one sample; of a total that is no mean, what it comes to for one sample."""
    test: str
    """How p was found."""


def of_means(first: Any, second: Any, ranges: Sequence[tuple[float, float | None]], seed: int = 0) -> list[Paired]:
    """Compare means, several pairs of them at once, by exchanging the two values of a sample (Fisher 1935, section 21).

    Where all values are 0 or 1 this is McNemar's exact test (1947); else every exchange is tried where up to `EXACT` samples
    differ, and `DRAWS` are drawn where more do (p by Phipson and Smyth 2010, equation 2). The interval is that of the paired
    bootstrap (percentiles); of few samples, and of equal differences, that of `interval.of_mean`.

    Args:
        first: comparisons x samples; NaN where there is no value.
        second: as `first`.
        ranges: of each comparison the smallest and the largest value that there is, as `Judge` and `Metric` say.
        seed: of the draws.
    """
    import numpy

    first, second = numpy.asarray(first, float), numpy.asarray(second, float)
    there = numpy.isfinite(first) & numpy.isfinite(second)
    apart = numpy.where(there, first - second, 0.0)
    if not there.any(1).all():
        raise ValueError("a comparison has no sample of which both values are known")
    is_binary = [bool(numpy.isin([a[has], b[has]], (0.0, 1.0)).all()) for a, b, has in zip(first, second, there, strict=True)]
    chances = _chances(apart, is_binary, seed)
    bounds = _bounds(apart, there, seed)
    found = []
    for place, (least, most) in enumerate(ranges):
        values = apart[place][there[place]]
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        reach = most - least if most is not None else 1.0 if is_binary[place] else None
        few = len(values) < FEW or not numpy.ptp(values)
        near = of_mean(values.tolist(), reach, -math.inf if reach is None else -reach) if few else bounds[place]
        found.append(Paired(float(values.mean()), near, *chances[place][:1], len(values), spread, chances[place][1]))
    return found


def of_totals(first: Any, second: Any, total: Callable[[Any], float], seed: int = 0) -> Paired:
    """Compare totals that are no means by exchanging answers (approximate randomization; Riezler and Maxwell 2005, figure 1).

    Args:
        first: samples x numbers, of which `total` takes the sums; a sample of NaN does not count.
        second: as `first`.
        total: the metric's own way from sums to a value.
        seed: of the draws.
    """
    import numpy

    there = numpy.isfinite(first).all(1) & numpy.isfinite(second).all(1)
    first, second = first[there], second[there]
    count, apart, sums = len(first), second - first, (first.sum(0), second.sum(0))
    if not count:
        raise ValueError("there is no sample of which both values are known")
    differs = numpy.flatnonzero(numpy.abs(apart).sum(1))
    is_exact = len(differs) <= EXACT
    blocks = _all(len(differs)) if is_exact else _drawn(len(differs), DRAWS_OF_TOTALS, seed)
    seen, as_large, observed = 0, 0, total(sums[0]) - total(sums[1])
    for block in blocks:
        moved = block @ apart[differs]
        found = numpy.array([total(a) - total(b) for a, b in zip(sums[0] + moved, sums[1] - moved, strict=True)])
        as_large += int((numpy.abs(found) >= abs(observed) - _slack(observed)).sum())
        seen += len(block)
    values = [
        total(a) - total(b)
        for weights in _resampled(count, seed)
        for a, b in zip(weights @ first, weights @ second, strict=True)
    ]
    low, high = numpy.percentile(values, [2.5, 97.5])
    spread = float(numpy.std(values)) * math.sqrt(count)
    p = as_large / seen if is_exact else (as_large + 1) / (seen + 1)
    interval = (float(low), float(high)) if count > 1 else None
    return Paired(float(observed), interval, p, count, spread, "exchanged answers" + (" (all)" if is_exact else ""))


def holm(chances: Sequence[float]) -> list[float]:
    """Each p so that all of them together are at most `LEVEL` of the time wrong (Holm 1979)."""
    made, so_far = [0.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda each: chances[each])):
        so_far = max(so_far, min(1.0, chances[place] * (len(chances) - rank)))
        made[place] = so_far
    return made


def resolved(spread: float, count: int, comparisons: int = 1) -> float:
    """The smallest difference that so many samples find significant in `POWER` of cases; smaller ones pass for noise.

    Args:
        spread: see `Paired.spread`.
        count: samples.
        comparisons: that are not decided yet: each has its part of `LEVEL`, as by Holm.
    """
    return _reach(comparisons) * spread / math.sqrt(count)


def needed(spread: float, difference: float, comparisons: int = 1) -> int | None:
    """Samples that find a difference as large as this one significant in `POWER` of cases; None where there is none.

    Never fewer than can be significant at all: of `n` exchanged samples the smallest p is `2 ** (1 - n)`.
    """
    if not difference:
        return None
    least = 1 + math.ceil(math.log2(comparisons / LEVEL))
    return max(least, math.ceil((_reach(comparisons) * spread / difference) ** 2))


def _reach(comparisons: int) -> float:
    """How many standard errors a difference must be long to be found in `POWER` of cases."""
    from scipy.special import ndtri

    return float(ndtri(1 - LEVEL / 2 / comparisons) + ndtri(POWER))


def _chances(apart: Any, is_binary: Sequence[bool], seed: int) -> list[tuple[float, str]]:
    """Of each row of differences p, and how it was found."""
    import numpy
    from scipy.stats import binomtest

    found: dict[int, tuple[float, str]] = {}
    for place, values in enumerate(apart):
        others = values[values != 0]
        if is_binary[place]:
            p = binomtest(int((others > 0).sum()), len(others)).pvalue if len(others) else 1.0
            found[place] = (float(p), "McNemar, exact")
        elif len(others) <= EXACT:
            sums = numpy.abs(others.sum() - 2 * numpy.concatenate([block @ others for block in _all(len(others))]))
            observed = abs(others.sum())
            found[place] = (float((sums >= observed - _slack(observed)).mean()), "exchanged values (all)")
    left = [place for place in range(len(apart)) if place not in found]
    if left:
        values, as_large = apart[left], numpy.zeros(len(left))
        observed = numpy.abs(values.sum(1))
        for block in _drawn(values.shape[1], DRAWS, seed):
            as_large += (numpy.abs(values.sum(1) - 2 * (block @ values.T)) >= observed - _slack(observed)).sum(0)
        found |= {
            place: (float((hits + 1) / (DRAWS + 1)), "exchanged values") for place, hits in zip(left, as_large, strict=True)
        }
    return [found[place] for place in range(len(apart))]


def _bounds(apart: Any, there: Any, seed: int) -> list[tuple[float, float]]:
    """Percentiles of each row's mean difference over samples that are drawn with replacement, the same ones for all rows."""
    import numpy

    drawn = []
    for weights in _resampled(apart.shape[1], seed):
        counts = weights @ there.T.astype(float)
        drawn.append(weights @ apart.T / numpy.where(counts, counts, numpy.nan))
    low, high = numpy.nanpercentile(numpy.concatenate(drawn), [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _resampled(count: int, seed: int) -> Iterator[Any]:
    """Blocks of draws x samples: how often each was drawn."""
    import numpy

    random, block = numpy.random.default_rng(seed), max(1, _CELLS // count)
    for begin in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - begin)
        places = random.integers(0, count, (size, count)) + numpy.arange(size)[:, None] * count
        yield numpy.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(float)


def _drawn(count: int, draws: int, seed: int) -> Iterator[Any]:
    """Blocks of draws x samples: 1 where the two are exchanged."""
    import numpy

    random, block = numpy.random.default_rng(seed), max(1, _CELLS // max(1, count))
    for begin in range(0, draws, block):
        yield random.integers(0, 2, (min(block, draws - begin), count), numpy.int8).astype(float)


def _all(count: int) -> Iterator[Any]:
    """Every way to exchange so many."""
    import numpy

    yield ((numpy.arange(2**count)[:, None] >> numpy.arange(count)) & 1).astype(float)


def _slack(observed: Any) -> Any:
    """What sums of the same numbers in another order may differ by."""
    return 1e-9 * (1 + abs(observed))
