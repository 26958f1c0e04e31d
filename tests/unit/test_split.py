from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from mlops_llm.data.read import Source
from mlops_llm.data.split import hold_out

ROWS = [
    {"prompt": f"第 {place} 个问题", "response": f"答案 {place * 7}", "metadata": {"place": place}} for place in range(5000)
]


def source(rows, name="rows"):
    return Source(name, Path(f"{name}.jsonl"), name, list(rows), list(range(1, len(rows) + 1)), "")


def held(rows, share, name="rows"):
    kept, out = hold_out(source(rows, name), share)
    assert sorted([*kept, *out]) == list(range(len(rows)))
    assert kept == sorted(kept)
    assert out == sorted(out)
    return {rows[place]["metadata"]["place"] for place in out}


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_the_share_is_met_on_average(share):
    # five standard deviations of a binomial distribution
    assert abs(len(held(ROWS, share)) / 5000 - share) < 5 * (share * (1 - share) / 5000) ** 0.5


def test_the_same_row_falls_on_the_same_side_in_any_order_file_and_company():
    out = held(ROWS, 0.1)
    moved = ROWS.copy()
    random.Random(1).shuffle(moved)
    assert held(moved, 0.1, "other") == out
    assert held(ROWS[1000:1300], 0.1) == {place for place in out if 1000 <= place < 1300}
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert held(turned, 0.1) == out


def test_duplicates_stay_together():
    twice = [row for row in ROWS[:300] for _ in range(3)]
    kept, out = hold_out(source(twice), 0.3)
    assert out
    assert not {twice[place]["prompt"] for place in kept} & {twice[place]["prompt"] for place in out}


def test_a_larger_share_holds_out_the_same_rows_and_more():
    assert held(ROWS, 0.1) < held(ROWS, 0.2) < held(ROWS, 0.9)


def test_a_share_of_nothing():
    assert hold_out(source(ROWS[:50]), 0.0) == (list(range(50)), [])
    assert hold_out(source([]), 0.5) == ([], [])


def test_sides_do_not_change_between_releases():
    """A held-out row of an old run must not become a training row of a new one."""
    out = held(ROWS[:60], 0.1)
    for place, row in enumerate(ROWS[:60]):
        text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        first = hashlib.sha256(text.encode()).digest()[:4]
        assert (place in out) == (int.from_bytes(first, "big") / 2**32 < 0.1)
    assert out
