"""Where a sweep looks next."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.surgery.sweep.search import At, evenly, followed, golden, over, proposed, shares


def asked(search, score) -> list[At]:
    seen: list[At] = []

    def one(at: At) -> float:
        seen.append(at)
        return score(at[0]) if len(at) == 1 else score(at)

    followed(search, one)
    return seen


@given(st.floats(0, 1), st.integers(3, 101), st.floats(0.1, 10), st.booleans())
def test_golden_finds_the_top_of_one_hill_as_finely_as_the_grid(top, points, steep, higher):
    sign = 1 if higher else -1

    def hill(x: float) -> float:
        return -sign * steep * abs(x - top)

    step = 1 / (points - 1)
    seen = asked(golden(0.0, 1.0, step, higher_is_better=higher), hill)
    best = max(seen, key=lambda at: sign * hill(at[0]))[0]
    assert abs(best - top) <= 2 * step + 1e-5
    # The hill is known to lie between the neighbours of the best point, ends included.
    line = sorted({0.0, 1.0, *(at[0] for at in seen)})
    place = line.index(best)
    assert line[place - 1] - 1e-5 <= top <= line[min(place + 1, len(line) - 1)] + 1e-5
    assert len(seen) == len(set(seen)) and (points < 8 or len(seen) < points - 2)


def test_golden_takes_half_of_a_grid_of_eleven():
    assert len(asked(golden(0.0, 1.0, 0.1, higher_is_better=False), lambda x: (x - 0.43) ** 2)) == 5


@given(st.floats(-5, 5), st.floats(0.01, 5), st.integers(2, 40))
def test_a_grid_has_both_ends_and_equal_steps(start, width, count):
    places = [each for (each,) in evenly(start, start + width, count)]
    assert len(places) == count and places[0] == pytest.approx(start, abs=1e-6)
    assert places[-1] == pytest.approx(start + width, abs=1e-6) and places == sorted(places)
    assert asked(over([(each,) for each in places]), float) == [(each,) for each in places]


@given(st.integers(3, 5), st.integers(2, 6))
def test_the_grid_on_the_simplex_is_whole(models, count):
    found = shares(models, count)
    assert len(set(found)) == len(found) == math.comb(count + models - 2, models - 1)
    assert all(sum(each) == pytest.approx(1, abs=1e-5) and min(each) >= 0 for each in found)
    assert all(max(each) == 1 for each in found[:models])


def test_optuna_is_the_same_for_the_same_seed_and_scores_and_shares_sum_to_one():
    pytest.importorskip("optuna")
    first, again, other = (
        asked(proposed(3, 0, 1, 15, seed, higher_is_better=True), lambda at: -((at[0] - 0.6) ** 2)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert all(sum(each) == pytest.approx(1, abs=1e-6) and len(each) == 3 and min(each) >= 0 for each in first)
    line = asked(proposed(2, 0.2, 0.8, 25, 0, higher_is_better=False), lambda x: (x - 0.5) ** 2)
    assert all(0.2 <= x <= 0.8 for (x,) in line) and min(abs(x - 0.5) for (x,) in line) < 0.05
