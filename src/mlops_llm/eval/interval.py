"""How sure a score is: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

RESAMPLES = 2000
FEW = 20
"""Values of which the bootstrap's interval of a mean holds it in 95 of 100 cases; of 5 in 84 (of ratings from 1 to 5)."""
_Z, _ALPHA = 1.959963984540054, 0.05


def wilson(hits: float, count: int) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, equation 4).

    Args:
        hits: how many of them are so.
        count: how many there are, at least 1.
    """
    share = hits / count
    centre = share + _Z**2 / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    low, high = (centre - half) / scale, (centre + half) / scale
    return (0.0 if hits == 0 else max(0.0, low), 1.0 if hits == count else min(1.0, high))


def bootstrap(count: int, value: Callable[[Any], float], seed: int = 0) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of what `value` makes of `count` items that are drawn with replacement.

    Args:
        count: items.
        value: from the places of the drawn items (an array of integers) to the score.
        seed: of the draws, so that the same items give the same interval.
    """
    import numpy

    random = numpy.random.default_rng(seed)
    found = [value(random.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = numpy.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def of_mean(values: Sequence[float], most: float | None = 1.0, least: float = 0.0) -> tuple[float, float] | None:
    """Interval of a mean; None of fewer than two values, and of equal ones that have no bound.

    Wilson's where the mean is a proportion (every value is 0 or 1, as there are no others). The bootstrap's of many values; of
    few, whose bootstrap is much too narrow, Student's. Of equal values none of these is any: there may be others among what was
    not drawn, at most `1 - 0.025 ** (1 / n)` of it (Clopper and Pearson 1934), and as far away as the scale allows.

    Args:
        values: of each item.
        most: the largest value there is; None where there is none.
        least: the smallest.
    """
    count = len(values)
    if count < 2 or any(map(math.isnan, values)):
        return None
    if (least, most) == (0.0, 1.0) and set(values) <= {0.0, 1.0}:
        return wilson(sum(values), count)
    if len(set(values)) == 1:
        others = 1 - (_ALPHA / 2) ** (1 / count)
        value = values[0]
        return None if most is None else (value - others * (value - least), value + others * (most - value))
    import numpy

    array = numpy.asarray(values, dtype=float)
    if count >= FEW:
        return bootstrap(count, lambda places: float(array[places].mean()))
    from scipy import stats

    mean, half = float(array.mean()), float(stats.t.ppf(1 - _ALPHA / 2, count - 1) * array.std(ddof=1)) / math.sqrt(count)
    return max(least, mean - half), mean + half if most is None else min(most, mean + half)


class Intervals(Mapping[str, tuple[float, float]]):
    """Intervals by name that are computed when somebody looks at them: of a few rows within many nobody does."""

    def __init__(self, computed: Mapping[str, Callable[[], tuple[float, float]]]) -> None:
        """Keep how each is computed."""
        self._computed, self._known = computed, dict[str, tuple[float, float]]()

    def __getitem__(self, name: str) -> tuple[float, float]:
        if name not in self._known:
            self._known[name] = self._computed[name]()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._computed)

    def __len__(self) -> int:
        return len(self._computed)
