"""Agreement beside published examples and scikit-learn."""

from __future__ import annotations

import math
import random

import numpy
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from mlops_llm.eval.people.agreement import Level, alpha, kappa
from mlops_llm.eval.people.compared import compared, spearman
from mlops_llm.eval.people.compared import kappa as by_moments
from mlops_llm.eval.people.place import placed

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def test_alpha_is_that_of_the_published_example() -> None:
    units = list(zip(*OBSERVERS, strict=True))
    assert alpha(units, Level.ordinal) == pytest.approx(0.815, abs=5e-4)
    assert alpha(units, Level.interval) == pytest.approx(0.849, abs=5e-4)


def test_alpha_of_no_agreement_and_of_all() -> None:
    draw = random.Random(0)
    assert alpha([(value, value) for value in (1, 2, 3, 4, 5)]) == 1.0
    assert abs(alpha([(draw.randint(1, 5), draw.randint(1, 5)) for _ in range(4000)])) < 0.05
    assert alpha([(1, 5), (5, 1)] * 50) < -0.9
    for units in ([], [(1, None), (None, 2)], [(3, 3), (3, 3)]):
        assert math.isnan(alpha(units))


def test_kappa_counts_by_the_scale_and_not_by_the_ratings_that_came_up() -> None:
    one, other = [1, 5, 5, 1, 2, 5], [1, 5, 2, 1, 5, 5]
    wanted = cohen_kappa_score(one, other, labels=[1, 2, 3, 4, 5], weights="quadratic")
    assert kappa(one, other) == pytest.approx(wanted)
    assert kappa([1, 5, 5, 1], [1, 5, 1, 1]) == pytest.approx(cohen_kappa_score([1, 5, 5, 1], [1, 5, 1, 1]))
    assert math.isnan(kappa([3, 3], [3, 3]))


@pytest.mark.parametrize("seed", range(5))
def test_kappa_by_moments_is_that_of_the_table(seed: int) -> None:
    draw = random.Random(seed)
    one = [draw.randint(1, 5) for _ in range(40)]
    other = [min(5, max(1, each + draw.choice((-1, 0, 0, 1, 2)))) for each in one]
    assert by_moments(numpy.array(one, float), numpy.array(other, float)) == pytest.approx(kappa(one, other))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 300 draws with a known correlation at most 8 % of the intervals miss it."""
    random_, missed = numpy.random.default_rng(0), 0
    true = 6 / math.pi * math.asin(0.7 / 2)  # Spearman's of a normal pair whose correlation is 0.7
    for _ in range(300):
        one, noise = random_.standard_normal((2, 60))
        low, high = spearman(list(one), list(0.7 * one + math.sqrt(1 - 0.49) * noise)).interval
        missed += not low <= true <= high
    assert missed <= 24


def test_a_judge_beside_people() -> None:
    people, judge = [1.0, 2.5, 3.0, 4.0, 4.5, 5.0, 2.0, 3.5], [2.0, 3.0, 3.0, 5.0, 5.0, 5.0, 3.0, 4.0]
    found = compared(people, judge)
    assert found.count == 8 and found.difference.value == pytest.approx(numpy.mean(numpy.subtract(judge, people)))
    assert found.spearman.value == pytest.approx(stats.spearmanr(people, judge).statistic)
    for each in (found.spearman, found.kappa, found.difference):
        low, high = each.interval
        assert low < each.value < high
    constant = compared([3.0] * 5, [3.0] * 5)
    assert math.isnan(constant.spearman.value) and math.isnan(constant.kappa.value) and constant.difference.value == 0
    assert math.isnan(compared([], []).kappa.value)


def test_p_of_the_place_is_that_of_scipy() -> None:
    draw = numpy.random.default_rng(3)
    first, later = draw.integers(1, 6, (2, 9)).astype(float)
    found = placed([{row: [(1, one), (2, other)] for row, (one, other) in enumerate(zip(first, later, strict=True))}])
    wanted = stats.permutation_test(
        (first, later), lambda a, b: (a - b).mean(), permutation_type="samples", n_resamples=numpy.inf
    )
    assert found and found.p == pytest.approx(wanted.pvalue) and found.difference == pytest.approx((first - later).mean())


def test_place_is_found_where_it_counts_and_hardly_where_it_does_not() -> None:
    """Of 200 raters to whom the place means nothing at most 7 % look as if it did, however far apart the models are."""
    draw, found = numpy.random.default_rng(1), []
    for bias in (0, 1):
        significant = 0
        for _ in range(200 if bias == 0 else 40):
            order = draw.integers(0, 2, 30)
            rating = numpy.clip(draw.integers(2, 5, (30, 2)) + numpy.array([1, -1]), 1, 5)
            shown = {row: [(1, rating[row, at] + bias), (2, rating[row, 1 - at])] for row, at in enumerate(order.tolist())}
            one = placed([shown])
            significant += bool(one and one.p < 0.05)
        found.append(significant)
    assert found[0] <= 14 and found[1] >= 20
