"""Which groups of an evaluation's rows lie apart by more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mlops_llm.eval.groups import MOST
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.report.naming import decisive
from mlops_llm.eval.significance import LEVEL

SMALL = 5
"""Items that a group must have to be named."""
DRAWS = 1_000
_CELLS = 2_000_000
"""Numbers of a drawn block."""


@dataclass(frozen=True)
class Side:
    """One group."""

    value: str
    mean: float
    count: int


@dataclass(frozen=True)
class Apart:
    """Two groups of a key, of all its pairs the one that lies furthest apart."""

    key: str
    score: Score
    worst: Side
    best: Side
    p: float
    """Over all pairs of groups of all keys."""


def apart(outcome: Outcome) -> list[Apart]:
    """Groups that lie significantly apart.

    Values are drawn among the samples; p is the share of draws in which some pair of groups, of whatever key, lies as far apart
    (the largest standardized difference; Westfall and Young 1993, single step). So of many groups without any difference one is
    named in 5 of 100 evaluations, however many there are.
    """
    score = _counted(outcome)
    if score is None:
        return []
    samples = [each for each in outcome.samples if math.isfinite(each.scores.get(score.name, math.nan))]
    keys = dict(_keys(samples))
    return [each for each in _tested(samples, keys, score) if each.p <= LEVEL] if keys else []


def _counted(outcome: Outcome) -> Score | None:
    """The decisive score where it is a mean of samples, else the next one that is: a corpus score says nothing of a sample."""
    first = decisive(outcome)
    good = [each for each in outcome.scores if each.higher_is_better is not None]
    return next((each for each in ([first] if first else []) + good if _is_mean(each, outcome.samples)), None)


def _is_mean(score: Score, samples: Sequence[Sample]) -> bool:
    values = [each.scores.get(score.name, math.nan) for each in samples]
    there = [each for each in values if math.isfinite(each)]
    return bool(there) and math.isclose(math.fsum(there) / len(there), score.value, rel_tol=1e-6, abs_tol=1e-9)


def _keys(samples: Sequence[Sample]) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """Each key with its groups' places; without those that are small."""
    for key in dict.fromkeys(key for each in samples for key in each.metadata):
        places = dict[str, list[int]]()
        for place, each in enumerate(samples):
            if key in each.metadata:
                places.setdefault(each.metadata[key], []).append(place)
        large = {value: rows for value, rows in places.items() if len(rows) >= SMALL}
        if len(large) > 1 and len(places) <= MOST:
            yield key, large


def _tested(samples: Sequence[Sample], keys: dict[str, dict[str, list[int]]], score: Score) -> Iterator[Apart]:
    import numpy

    values = numpy.array([each.scores[score.name] for each in samples])
    groups = [rows for of in keys.values() for rows in of.values()]
    is_of = numpy.zeros((len(values), len(groups)))
    for place, rows in enumerate(groups):
        is_of[rows, place] = 1
    counts, begins = is_of.sum(0), [0, *accumulate(len(of) for of in keys.values())]
    pairs = [begin + numpy.stack(numpy.triu_indices(len(of), 1)) for begin, of in zip(begins, keys.values(), strict=False)]
    means = (values @ is_of / counts)[None]
    seen = [_distances(means, counts, each) for each in pairs]
    largest = numpy.concatenate(
        [_largest(block @ is_of / counts, counts, pairs) for block in _drawn(values, numpy.random.default_rng(0))]
    )
    sign = -1 if score.higher_is_better is False else 1
    for (key, of), begin, distances, each in zip(keys.items(), begins, seen, pairs, strict=False):
        far = int(distances[0].argmax())
        # Sums of the same numbers in another order differ in their last digits.
        as_far = (largest >= distances[0, far] * (1 - 1e-9)).sum()
        names = list(of)
        sides = [Side(names[place - begin], float(means[0, place]), int(counts[place])) for place in each[:, far]]
        worst, best = sorted(sides, key=lambda side: sign * side.mean)
        yield Apart(key, score, worst, best, float((as_far + 1) / (DRAWS + 1)))


def _distances(means: Any, counts: Any, pairs: Any) -> Any:
    """Draws x pairs: differences of means, divided by what they scatter."""
    import numpy

    one, other = pairs
    return numpy.abs(means[:, one] - means[:, other]) / numpy.sqrt(1 / counts[one] + 1 / counts[other])


def _largest(means: Any, counts: Any, pairs: Sequence[Any]) -> Any:
    import numpy

    return numpy.max([_distances(means, counts, each).max(1) for each in pairs], axis=0)


def _drawn(values: Any, random: Any) -> Iterator[Any]:
    """Blocks of draws x samples: the values in another order."""
    import numpy

    block = max(1, _CELLS // len(values))
    for begin in range(0, DRAWS, block):
        yield random.permuted(numpy.tile(values, (min(block, DRAWS - begin), 1)), axis=1)
