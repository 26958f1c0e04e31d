"""Where a sweep looks: all places of a grid, or the next one by what was found before.

A search is a generator: it gives a place and is sent its score. It depends on nothing else, so that one that is begun anew goes
the same way as long as the scores are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from enum import Enum

from mlops_llm.errors import need

At = tuple[float, ...]
"""A place: one number, or the share of each model."""
Searching = Generator[At, float, None]
_DIGITS = 6
_INVERSE = (math.sqrt(5) - 1) / 2


class Search(Enum):
    """How the best place is looked for."""

    grid = "grid"
    """All places of a grid."""
    golden = "golden"
    """Golden-section search: as fine as the grid with about half of its points, where there is one hill."""
    optuna = "optuna"
    """Optuna's tree of Parzen estimators chooses each next place."""


def followed(search: Searching, score: Callable[[At], float]) -> None:
    """Follow a search to its end.

    Args:
        search: gives places.
        score: of a place.
    """
    try:
        at = next(search)
        while True:
            at = search.send(score(at))
    except StopIteration:
        return


def over(places: Sequence[At]) -> Searching:
    """All of them, in order."""
    for each in places:  # noqa: UP028 (a list takes no scores)
        yield each


def evenly(start: float, stop: float, count: int) -> list[At]:
    """Places at equal distances, both ends included."""
    return [(_round(start + (stop - start) * each / (count - 1)),) for each in range(count)]


def shares(models: int, count: int) -> list[At]:
    """Every way to share 1 among models in steps of 1 / (count - 1): the grid on the simplex, its corners first."""
    steps = count - 1
    found = [tuple(_round(each / steps) for each in parts) for parts in _parts(steps, models)]
    return sorted(found, key=lambda each: max(each) < 1.0)


def _parts(total: int, count: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        yield from ((first, *rest) for rest in _parts(total - first, count - 1))


def golden(start: float, stop: float, step: float, *, higher_is_better: bool) -> Searching:
    """Narrow the place of the one maximum down (Kiefer 1953, "Sequential minimax search for a maximum").

    Each point leaves 0.618 of the interval that the best one lies in, until that is no longer than the two steps of a grid
    between which it would know it. Of a curve with several hills it finds one of them.

    Args:
        start: one end.
        stop: the other.
        step: of the grid that is to be matched.
        higher_is_better: whether the maximum is wanted, else the minimum.
    """
    sign = 1.0 if higher_is_better else -1.0
    low, high = start, stop
    near, far = _round(high - _INVERSE * (high - low)), _round(low + _INVERSE * (high - low))
    at_near = sign * (yield (near,))
    at_far = sign * (yield (far,))
    fine = 2 * step + 10**-_DIGITS
    while True:
        if at_near >= at_far:
            high, far, at_far = far, near, at_near
            if high - low <= fine:
                return
            near = _round(high - _INVERSE * (high - low))
            at_near = sign * (yield (near,))
        else:
            low, near, at_near = near, far, at_far
            if high - low <= fine:
                return
            far = _round(low + _INVERSE * (high - low))
            at_far = sign * (yield (far,))


def proposed(models: int, start: float, stop: float, count: int, seed: int, *, higher_is_better: bool) -> Searching:
    """Places that Optuna proposes (ask and tell; Bergstra et al. 2011, "Algorithms for hyper-parameter optimization").

    Args:
        models: three or more share 1, drawn evenly from the simplex at first; else one number is looked for.
        start: smallest number.
        stop: largest number.
        count: how many places.
        seed: of what is drawn.
        higher_is_better: whether the maximum is wanted.

    Raises:
        UserError: Optuna is not installed.
    """
    need("optuna", "search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize" if higher_is_better else "minimize", sampler=optuna.samplers.TPESampler(seed=seed)
    )
    for _ in range(count):
        trial = study.ask()
        if models > 2:
            # Logarithms of uniform numbers, brought to a sum of 1, are uniform on the simplex (Devroye 1986, chapter XI, 4).
            drawn = [-math.log(trial.suggest_float(f"share {each}", 1e-6, 1.0)) + 1e-9 for each in range(models)]
            at = _summed([each / sum(drawn) for each in drawn])
        else:
            at = (_round(trial.suggest_float("at", start, stop)),)
        study.tell(trial, (yield at))


def _summed(parts: Sequence[float]) -> At:
    """Shares of three digits that sum to 1."""
    short = [round(each, 3) for each in parts]
    largest = short.index(max(short))
    short[largest] = _round(1.0 - sum(each for place, each in enumerate(short) if place != largest))
    return tuple(short)


def _round(value: float) -> float:
    return round(value, _DIGITS)
