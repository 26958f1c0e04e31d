from __future__ import annotations

import numpy as np
import pytest

from mlops_llm.data.dedup import neighbours
from mlops_llm.data.dedup.embedders import unit


def vectors(count: int, width: int = 16) -> np.ndarray:
    """Random ones, every fifth close to the one before."""
    drawn = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    drawn[4::5] = drawn[3::5][: len(drawn[4::5])] + 0.02
    return unit(drawn, "")


def search(how, given, threshold=0.95, open_=None) -> list[tuple[int, int]]:
    found = []
    for pairs in how(given, threshold, open_ or (lambda: np.ones(len(given), bool))):
        found += zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    return found


def brute(given, threshold=0.95) -> list[tuple[int, int]]:
    near = np.triu(given @ given.T >= threshold, 1)
    return list(zip(*(each.tolist() for each in np.nonzero(near)), strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, 1024, 1025, 2500])
def test_blocks_find_every_pair_once(count):
    given = vectors(count) if count else np.zeros((0, 4), np.float32)
    assert sorted(search(neighbours.exact, given)) == brute(given)


def test_many_column_blocks_find_every_pair_once(monkeypatch):
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    monkeypatch.setattr(neighbours, "_COLUMNS", 20)
    given = vectors(100)
    assert sorted(search(neighbours.exact, given)) == brute(given)


def test_equal_vectors_have_a_cosine_of_one():
    given = np.repeat(vectors(1), 3, axis=0)
    (pairs,) = neighbours.exact(given, 1.0, lambda: np.ones(3, bool))
    assert pairs.score.tolist() == pytest.approx([1, 1, 1])
    assert len(pairs.first) == 3


def test_rows_that_are_gone_are_not_looked_for():
    given = vectors(100)
    gone = np.arange(100) % 5 == 4
    assert search(neighbours.exact, given, open_=lambda: ~gone) == []


def test_the_approximate_search_finds_most_pairs():
    pytest.importorskip("faiss")
    given = vectors(3000)
    found = search(neighbours.approximate, given)
    assert set(found) <= set(brute(given))
    assert len(found) >= 0.9 * len(brute(given))
    assert found == sorted(found)
