from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.minhash import CROWD, Bands, bands, candidates, find, jaccard, shingles, signatures
from mlops_llm.data.dedup.texts import tables
from mlops_llm.data.engine import Local

pytest.importorskip("rensa")
WORDS = [f"{one}{two}" for one in "bdfgk" for two in ("a", "e", "i", "o", "u")]


def search(prompts, threshold=0.8, keep=Keep.first, solutions=None):
    rows = [{"prompt": each} for each in prompts]
    for row, solution in zip(rows, solutions or [], strict=False):
        row["solution"] = solution
    return find(tables(enumerate(rows, 1), 7), ["prompt", "answer"], keep, threshold, 3, Local())


def removed(found):
    return list(zip(found.removed["id"].to_pylist(), found.removed["equals"].to_pylist(), strict=True))


def sentence(seed: int, length: int = 16) -> list[str]:
    return random.Random(seed).sample(WORDS, length)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cat, the CAT", ["the", "cat", "the", "cat"]),
        ("今天天气好", ["今天天", "天天气", "天气好"]),
        ("你好", ["你好"]),
        ("用Python写代码吧", ["用", "python", "写代码", "代码吧"]),
        ("สวัสดี", ["สวั", "วัส", "ัสด", "สดี"]),
        ("?! 😀", []),
    ],
)
def test_shingles_are_words_or_runs_of_characters(text, found):
    assert shingles(text, 3) == found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold):
    cut = bands(threshold)
    assert cut.bands * cut.rows <= 128
    assert 1 - (1 - threshold**cut.rows) ** cut.bands >= 0.98


def test_jaccard_is_shared_over_all():
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0


def test_a_sentence_with_one_other_word_is_found_with_its_true_similarity():
    one = sentence(1)
    found = search([" ".join(one), "something else entirely", " ".join([*one[:-1], "zebra"])])
    assert removed(found) == [(2, 0)]
    assert found.removed["score"].to_pylist() == [15 / 17]
    assert found.rows == 3


def test_chinese_is_compared_by_runs_of_characters():
    found = search(["请问这台洗衣机的安装费用是多少钱呢", "今天的天气怎么样", "请问这台洗衣机的安装费用是多少钱"], 0.8)
    assert removed(found) == [(2, 0)]


def test_what_differs_in_a_number_stays_and_is_told():
    one = " ".join(sentence(1))
    found = search([f"{one} 23", f"{one} 24"])
    assert removed(found) == []
    assert found.different.to_pylist() == [{"id": 1, "equals": 0, "score": 16 / 18, "differ": "numbers"}]


def test_what_differs_in_the_solution_stays_though_it_is_the_same_text():
    found = search(["1 + 1 is what?", "1 + 1 is what"], solutions=["2", "3"])
    assert removed(found) == []
    assert found.different["differ"].to_pylist() == ["solution"]


def test_the_order_of_words_matters():
    found = search(["the dog bit the man in the old garden", "the man bit the dog in the old garden"])
    assert removed(found) == []
    assert found.different["differ"].to_pylist() == ["word order"]


def test_the_longest_stays_when_it_is_asked_for():
    one = sentence(1)
    assert removed(search([" ".join(one), " ".join([*one, "extraordinarily"])], keep=Keep.longest)) == [(0, 1)]


def test_every_row_that_goes_is_itself_similar_to_one_that_stays():
    """In a chain the ends are not."""
    words = [f"w{chr(97 + place)}" for place in range(20)]
    chain = [" ".join(words[start : start + 16]) for start in range(4)]
    found = search(chain, 0.85)
    assert removed(found) == [(1, 0), (3, 2)]
    assert min(found.removed["score"].to_pylist()) >= 0.85


def test_rows_that_were_equal_to_one_that_went_equal_the_one_that_stays():
    one = sentence(1)
    other = " ".join([*one[:-1], "zebra"])
    assert removed(search([" ".join(one), other, f"{other}."])) == [(1, 0), (2, 0)]


def test_a_crowded_bucket_is_emptied_in_rounds():
    one = sentence(1, 20)
    rows = [" ".join([*one, f"zq{chr(97 + n // 26)}{chr(97 + n % 26)}"]) for n in range(5 * CROWD)]
    assert removed(search(rows, 0.9)) == [(place, 0) for place in range(1, 5 * CROWD)]


@pytest.mark.parametrize("prompts", [[], [""], ["", ""], ["?!", "😀"], ["a"]])
def test_rows_without_words_stay(prompts):
    found = search(prompts)
    assert removed(found) == []
    assert found.rows == len(prompts)


def test_candidates_do_not_depend_on_the_order_of_rows():
    table = pa.table({"place": pa.array(range(100)), "text": [" ".join(sentence(n % 9)) for n in range(100)]})
    signed = signatures(table, 3, Bands(16, 8))
    mixed = signed.take(random.Random(0).sample(range(len(signed)), len(signed)))
    assert candidates(mixed).equals(candidates(signed))
    halves = pa.concat_tables([signatures(table.slice(50), 3, Bands(16, 8)), signatures(table.slice(0, 50), 3, Bands(16, 8))])
    assert candidates(halves).equals(candidates(signed))


@given(
    st.lists(st.lists(st.sampled_from(WORDS[:8]), min_size=1, max_size=8).map(" ".join), max_size=20),
    st.sampled_from(list(Keep)),
)
def test_what_is_left_has_no_near_duplicates(prompts, keep):
    gone = {one for one, _ in removed(search(prompts, 0.6, keep))}
    left = [prompt for place, prompt in enumerate(prompts) if place not in gone]
    assert removed(search(left, 0.6, keep)) == []
