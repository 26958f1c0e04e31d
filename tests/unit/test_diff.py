from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.diff import compare

ROWS = [{"prompt": f"第 {number} 个问题", "response": f"这是回答 {number}"} for number in range(6)]
small = st.lists(st.fixed_dictionaries({"prompt": st.sampled_from("abcdef"), "response": st.sampled_from("xyz")}), max_size=8)


def test_a_changed_answer_is_one_change_with_its_field():
    after = [dict(ROWS[0], response="别的"), *ROWS[1:]]
    found = compare(ROWS, after)
    assert (found.added, found.removed, found.same, found.moved) == ([], [], 5, False)
    (change,) = found.changed
    assert change.fields == {"response": ("这是回答 0", "别的")}


def test_a_changed_prompt_is_found_by_its_nearest_text():
    after = [*ROWS[:5], {"prompt": "第 5 个问题?", "response": "这是回答 5"}]
    found = compare(ROWS, after)
    assert [change.fields for change in found.changed] == [{"prompt": ("第 5 个问题", "第 5 个问题?")}]


def test_texts_that_have_nothing_in_common_are_removed_and_added():
    other = {"prompt": "hello there", "response": "general"}
    found = compare(ROWS, [*ROWS[:5], other])
    assert (found.added, found.removed, found.changed) == ([other], [ROWS[5]], [])


def test_a_key_names_a_row_whatever_it_says():
    before = [{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "b"}]
    after = [{"id": 2, "prompt": "b"}, {"id": 1, "prompt": "zzz"}]
    (change,) = compare(before, after, "id").changed
    assert change.before["id"] == change.after["id"] == 1


def test_rows_in_another_order_are_the_same_rows_moved():
    found = compare(ROWS, ROWS[::-1])
    assert (found.added, found.removed, found.changed, found.same, found.moved) == ([], [], [], 6, True)


@given(small, small)
def test_the_difference_accounts_for_every_row(before, after):
    found = compare(before, after)
    assert found.same + len(found.changed) + len(found.removed) == len(before)
    assert found.same + len(found.changed) + len(found.added) == len(after)


@given(small)
def test_nothing_differs_from_itself(rows):
    found = compare(rows, rows)
    assert (found.added, found.removed, found.changed, found.moved) == ([], [], [], False)
