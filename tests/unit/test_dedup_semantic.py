from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.dedup import settle
from mlops_llm.data.dedup.embedders import Embedded, unit
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.semantic import LONGEST, find
from mlops_llm.data.dedup.texts import tables
from mlops_llm.data.engine import Local
from mlops_llm.errors import UserError


class Letters:
    """Embeds by the letters a to z a text holds: transparent, and blind to digits and order as real models nearly are."""

    id = "letters==1"
    travels = True

    def __init__(self, unknown: str = "") -> None:
        self.seen: list[str] = []
        self._unknown = unknown

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.seen += texts
        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] + [0.1] for text in texts], np.float32)
        unknown = np.array([sum(text.count(each) for each in self._unknown) for text in texts], np.int64)
        return Embedded(unit(counts, self.id), np.array([len(text) for text in texts]), unknown)


def search(rows, threshold=0.95, keep=Keep.first, embedder=None, limit=100_000, review=1.0):
    rows = [row if isinstance(row, dict) else {"prompt": row} for row in rows]
    model = embedder or Letters()
    return find(tables(enumerate(rows, 1), 7), ["prompt", "answer"], keep, threshold, model, Local(), limit, review)


def removed(found):
    return list(zip(found.removed["id"].to_pylist(), found.removed["equals"].to_pylist(), strict=True))


def differ(found):
    return [(row["id"], row["equals"], row["differ"]) for row in found.different.to_pylist()]


def test_rows_over_the_threshold_go_and_others_stay():
    found = search(["please list the colours", "please list the colour", "an unrelated question"])
    assert removed(found) == [(1, 0)]
    assert 0.95 <= found.removed["score"][0].as_py() < 1
    assert found.facts["embedder"] == "letters==1"
    assert found.facts["threshold"] == 0.95


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("add 23 and 45", "add 23 and 46", "numbers"),
        ("one may eat this kind of mushroom", "one may not eat this kind of mushroom", "negations"),
        ("the dog bit the man", "the man bit the dog", "word order"),
        ("well done 😀", "well done 🎉", "emoji"),
    ],
)
def test_what_a_vector_does_not_see_is_kept_and_told(one, other, said):
    found = search([one, other], 0.9)
    assert removed(found) == []
    assert differ(found) == [(1, 0, said)]


def test_equal_texts_with_two_solutions_stay():
    found = search([{"prompt": "add them", "solution": "3"}, {"prompt": "add them", "solution": "4"}])
    assert removed(found) == []
    assert differ(found) == [(1, 0, "solution")]


def test_equal_texts_are_embedded_once():
    model = Letters()
    found = search(["hello there", "hello  there!", "ｈello there", "other words"], embedder=model)
    assert removed(found) == [(1, 0), (2, 0)]
    assert found.removed["score"].to_pylist() == [1, 1]
    assert set(model.seen) == {"hello there", "other words"}


def test_long_texts_are_compared_text_for_text_only():
    long = "abc " * LONGEST
    model = Letters()
    found = search([long, f"{long}d", long, "short"], embedder=model)
    assert removed(found) == [(2, 0)]
    assert set(model.seen) == {"short"}
    assert found.facts[f"longer than {LONGEST} characters"].startswith("2 rows")


def test_an_embedder_that_does_not_know_the_texts_is_refused():
    with pytest.raises(UserError) as caught:
        search(["aaab", "aaac", "bbbb"], embedder=Letters(unknown="b"))
    assert "does not know 42%" in str(caught.value)
    assert caught.value.where == "letters==1"
    assert "\n" not in str(caught.value)


def test_single_rows_that_it_does_not_know_are_left_alone():
    rows = ["q" * 200, "q" * 199, *(chr(97 + n) * 50 for n in range(15)), "zzz", "zzzz"]
    found = search(rows, embedder=Letters(unknown="z"))
    assert removed(found) == [(1, 0)]
    assert found.facts["unknown tokens"].startswith("2 rows")


def test_the_longest_stays_when_it_is_asked_for():
    assert removed(search(["please list the colour", "please list the colours"], keep=Keep.longest)) == [(0, 1)]


def test_above_the_limit_the_search_is_named_approximate():
    pytest.importorskip("faiss")
    found = search([f"{chr(97 + n % 26) * 9}{chr(97 + n // 26) * 9}" for n in range(200)], limit=100, review=0.5)
    assert "approximate" in found.facts["search"]
    assert len(found.review) == 0
    assert "search" not in search(["a", "b"]).facts


def test_pairs_below_the_threshold_are_listed_to_review_the_most_similar_first():
    rows = ["aaaa bbbb", "aaaa bbb", "aaaa bb", "aaaa bb 7", "zzzz"]
    found = search(rows, 0.985, review=0.9)
    assert removed(found) == [(1, 0)]
    listed = [(row["id"], row["equals"]) for row in found.review.to_pylist()]
    assert listed == [(2, 0)], "row 1 went, row 3 has a number, row 4 is not similar"
    assert 0.9 <= found.review["score"][0].as_py() < 0.985
    assert len(search(rows, 0.985).review) == 0


def test_more_pairs_to_review_than_can_be_listed_are_counted(monkeypatch):
    monkeypatch.setattr(settle, "LISTED", 3)
    rows = [f"{'a' * 20}{chr(98 + n) * (10 + n // 5)}" for n in range(20)]
    found = search(rows, 0.99, review=0.5)
    assert len(found.review) == 3
    assert found.unreviewed > 100
    score = found.review["score"].to_pylist()
    assert score == sorted(score, reverse=True)
    assert score[0] == max(search(rows, 0.99, review=score[0] - 1e-9).review["score"].to_pylist())


@pytest.mark.parametrize("rows", [[], [""], ["", "?"], ["a"]])
def test_rows_without_text_stay(rows):
    found = search(rows)
    assert removed(found) == []
    assert found.rows == len(rows)


@given(st.lists(st.text("abc12 不", max_size=6), max_size=20), st.sampled_from(list(Keep)))
def test_what_is_left_has_no_duplicates_and_every_row_that_goes_equals_one_that_stays(prompts, keep):
    pairs = removed(search(prompts, 0.9, keep))
    gone = {one for one, _ in pairs}
    assert not gone & {other for _, other in pairs}
    assert removed(search([prompt for place, prompt in enumerate(prompts) if place not in gone], 0.9, keep)) == []
