"""How sure a score is: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

RESAMPLES = 2000
_Z = 1.959963984540054


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


def of_mean(values: Sequence[float], most: float | None = 1.0) -> tuple[float, float] | None:
    """Interval of a mean; None of fewer than two values.

    Args:
        values: of each item.
        most: the largest value there is; where it is 1 and every value is 0 or 1, the mean is a proportion and the interval
            Wilson's, else it is the bootstrap's.
    """
    if len(values) < 2 or any(map(math.isnan, values)):
        return None
    if most == 1.0 and set(values) <= {0.0, 1.0}:
        return wilson(sum(values), len(values))
    import numpy

    array = numpy.asarray(values, dtype=float)
    return bootstrap(len(array), lambda places: float(array[places].mean()))


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
