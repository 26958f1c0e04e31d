"""What is chance and what is not: against scipy, and by simulation."""

from __future__ import annotations

import math

import numpy
import pytest
from scipy import stats

from mlops_llm.eval.metric import Item
from mlops_llm.eval.metrics.bleu import Bleu
from mlops_llm.eval.metrics.label import Label
from mlops_llm.eval.significance import EXACT, LEVEL, holm, needed, of_means, of_totals, resolved

RANDOM = numpy.random.default_rng(7)


def apart(first, second, axis=-1):
    return first.mean(axis=axis) - second.mean(axis=axis)


@pytest.mark.parametrize("count", [3, 8, EXACT])
def test_few_samples_are_exchanged_in_every_way(count: int) -> None:
    first, second = RANDOM.normal(0.5, 1, count), RANDOM.normal(0, 1, count)
    wanted = stats.permutation_test((first, second), apart, permutation_type="samples", n_resamples=math.inf, vectorized=True)
    (found,) = of_means([first], [second], [(0, None)])
    assert found.p == pytest.approx(wanted.pvalue) and found.difference == pytest.approx(wanted.statistic)
    assert "(all)" in found.test


def test_of_many_samples_enough_exchanges_are_drawn() -> None:
    first = RANDOM.integers(1, 6, 80).astype(float)
    second = numpy.clip(first + RANDOM.integers(-2, 2, 80), 1, 5)
    wanted = stats.permutation_test(
        (first, second), apart, permutation_type="samples", n_resamples=5_000, vectorized=True, rng=numpy.random.default_rng(1)
    )
    found, again = of_means([first, first], [second, second], [(1, 5)] * 2)
    assert found == again and found.p == pytest.approx(wanted.pvalue, abs=0.02)
    bounds = stats.bootstrap(
        (first, second), apart, paired=True, method="percentile", n_resamples=3_000, vectorized=True,
        rng=numpy.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.interval == (pytest.approx(bounds.low, abs=0.04), pytest.approx(bounds.high, abs=0.04))


def test_right_and_wrong_are_compared_by_mcnemar() -> None:
    first = numpy.array([1.0] * 60 + [0.0] * 40)
    second = numpy.array([1.0] * 45 + [0.0] * 15 + [1.0] * 6 + [0.0] * 34)
    (found,) = of_means([first], [second], [(0, 1)])
    assert found.p == pytest.approx(stats.binomtest(15, 21).pvalue) and found.test == "McNemar, exact"
    (same,) = of_means([first], [first], [(0, 1)])
    assert (same.p, same.difference) == (1.0, 0.0) and same.interval and same.interval[0] < 0 < same.interval[1]


def test_samples_that_one_model_lacks_do_not_count() -> None:
    first, second = RANDOM.normal(0, 1, 40), RANDOM.normal(0.2, 1, 40)
    lacking = first.copy()
    lacking[5:25] = numpy.nan
    rest = numpy.r_[0:5, 25:40]
    whole, part = of_means([first, lacking], [second, second], [(0, None)] * 2)
    (alone,) = of_means([first[rest]], [second[rest]], [(0, None)])
    assert (whole.count, part.count) == (40, 20) and part.difference == pytest.approx(alone.difference)
    assert part.p == pytest.approx(alone.p, abs=0.02) and part.spread == pytest.approx(alone.spread)
    with pytest.raises(ValueError, match="no sample"):
        of_means([[math.nan, 1.0]], [[1.0, math.nan]], [(0, 1)])


def test_chance_alone_is_rarely_called_a_difference() -> None:
    """500 null trials: at 5 % fewer than 7 % are wrong, of ratings and of right or wrong, few samples and many."""
    for count in (8, 60):
        ratings = RANDOM.choice([1.0, 2, 3, 4, 5], (2, 500, count), p=[0.05, 0.1, 0.2, 0.4, 0.25])
        hits = (RANDOM.random((2, 500, count)) < 0.6).astype(float)
        for values, most in ((ratings, 5.0), (hits, 1.0)):
            found = of_means(values[0], values[1], [(0.0, most)] * 500)
            assert numpy.mean([each.p <= LEVEL for each in found]) < 0.07


def test_as_many_samples_as_are_needed_find_the_difference_in_four_of_five_cases() -> None:
    gap, spread = 0.3, 0.9
    count = needed(spread, gap)
    assert count and resolved(spread, count) == pytest.approx(gap, rel=0.02), "what is needed for a gap is what resolves it"
    assert resolved(0.8, 100) == pytest.approx(0.22, abs=0.005), "the figure of the guide"
    first = RANDOM.normal(gap, spread, (400, count))
    found = of_means(first, numpy.zeros_like(first), [(0, None)] * 400)
    assert 0.73 < numpy.mean([each.p <= LEVEL for each in found]) < 0.87
    assert needed(spread, 0.0) is None and needed(spread, gap, 10) > count
    assert needed(0.0, 1.0) == 6 and needed(0.0, 1.0, 10) == 9, "of five samples no exchange is rarer than one in sixteen"


def test_holm_keeps_the_order_and_is_never_below_p() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [pytest.approx(each) for each in (0.03, 0.06, 0.06, 0.02)]
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


WORDS = ["the", "a", "of", "cat", "dog", "house", "runs", "sits", "blue", "red", "tree", "is", "was", "on", "in", "under"]


def answers(references: list[str], share: float) -> list[Item]:
    """References in which a share of the words is another."""

    def changed(text: str) -> str:
        return " ".join(RANDOM.choice(WORDS) if RANDOM.random() < share else word for word in text.split())

    return [Item(changed(each), [each]) for each in references]


def test_totals_of_a_corpus_are_compared_by_exchanging_answers() -> None:
    references = [" ".join(RANDOM.choice(WORDS, 15)) for _ in range(60)]
    first, second = answers(references, 0.2), answers(references, 0.45)
    one, other = (Bleu().score(each) for each in (first, second))
    found = of_totals(one.sums["bleu"].counts, other.sums["bleu"].counts, one.sums["bleu"].total)
    assert found.difference == pytest.approx(one.total["bleu"] - other.total["bleu"])
    assert found.p < 0.01 and found.interval and 0 < found.interval[0] < found.difference < found.interval[1]
    # The same by hand: every exchange of four answers, each corpus scored anew.
    one, other = (Bleu().score(each[:4]) for each in (first, second))
    found, total = of_totals(one.sums["bleu"].counts, other.sums["bleu"].counts, one.sums["bleu"].total), []
    for number in range(16):
        sides = [[first[at] if number >> at & 1 == side else second[at] for at in range(4)] for side in (0, 1)]
        total.append(abs(Bleu().score(sides[0]).total["bleu"] - Bleu().score(sides[1]).total["bleu"]))
    assert found.p == pytest.approx(numpy.mean([each >= abs(found.difference) - 1e-9 for each in total]))


def test_models_that_answer_by_chance_have_the_same_total() -> None:
    wrong = 0
    for _ in range(20):
        labels = RANDOM.choice(["yes", "no"], 40)
        said = [RANDOM.permutation(labels) for _ in range(2)]
        sides = [[Item(str(a), label=str(label)) for a, label in zip(each, labels, strict=True)] for each in said]
        one, other = (Label().score(each).sums["label_macro_f1"] for each in sides)
        assert one.total(one.counts.sum(0)) == pytest.approx(Label().score(sides[0]).total["label_macro_f1"])
        wrong += of_totals(one.counts, other.counts, one.total).p <= LEVEL
    assert wrong <= 4
