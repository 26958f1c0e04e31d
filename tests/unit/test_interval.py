"""How sure a mean is: the intervals hold it as often as they say, few values and equal ones included."""

from __future__ import annotations

import numpy
import pytest
from scipy import stats

from mlops_llm.eval.interval import FEW, of_mean, wilson


@pytest.mark.parametrize("count", [2, 3, 5, 12, FEW])
def test_a_mean_of_ratings_is_held_as_often_as_said(count: int) -> None:
    random, ratings, shares = numpy.random.default_rng(1), numpy.arange(1.0, 6), [0.05, 0.1, 0.2, 0.4, 0.25]
    mean, held, times = float(ratings @ shares), 0, 300 if count < FEW else 100
    for _ in range(times):
        found = of_mean(random.choice(ratings, count, p=shares).tolist(), 5.0, 1.0)
        assert found and 1 <= found[0] <= found[1] <= 5
        held += found[0] - 1e-9 <= mean <= found[1] + 1e-9
    assert held / times >= 0.89


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 7), (50, 200), (9, 9)])
def test_a_proportion_has_the_interval_of_wilson(hits: int, count: int) -> None:
    wanted = stats.binomtest(hits, count).proportion_ci(0.95, "wilson")
    values = [1.0] * hits + [0.0] * (count - hits)
    assert of_mean(values) == wilson(hits, count) == (pytest.approx(wanted.low), pytest.approx(wanted.high))


def test_equal_values_leave_room_for_those_that_were_not_drawn() -> None:
    low, high = of_mean([4.0] * 12, 5.0, 1.0) or (0, 0)
    others = stats.binomtest(0, 12).proportion_ci(0.95, "exact").high
    assert (low, high) == (pytest.approx(4 - 3 * others), pytest.approx(4 + others))
    assert of_mean([7.0] * 9, None) is None and of_mean([4.0], 5.0) is None and of_mean([1.0, float("nan")]) is None


def test_few_values_have_the_interval_of_student() -> None:
    values = [0.2, 0.4, 0.9, 0.5]
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert of_mean(values) == (pytest.approx(wanted.low), pytest.approx(min(1.0, wanted.high)))
    assert of_mean([0.0, 1.0, 0.5], 1.0)[0] == 0.0
