from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.dedup.exact import duplicates, find
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.texts import normal, tables
from mlops_llm.data.engine import Local

BOTH = ["prompt", "answer"]
few = st.sampled_from(["", "a", "A", "几点", "几点 ", "5²", "52", None])
rows_of_few = st.lists(
    st.fixed_dictionaries({"prompt": few.filter(lambda each: each is not None), "response": few, "solution": few}), max_size=12
)


def pairs(rows, fields=None, keep=Keep.first, normalize=False, size=3):
    found = find(tables(enumerate(rows, 1), size), fields or BOTH, keep, normalize, Local())
    assert found.rows == len(rows)
    removed = list(zip(found.removed["id"].to_pylist(), found.removed["equals"].to_pylist(), strict=True))
    different = [(row["id"], row["equals"], row["differ"]) for row in found.different.to_pylist()]
    return removed, different


def ask(prompt, response="yes", **more):
    return {"prompt": prompt, "response": response, **more}


def test_rows_that_are_the_same_equal_the_first():
    assert pairs([ask("a"), ask("b"), ask("a"), ask("a")]) == ([(2, 0), (3, 0)], [])


def test_rows_that_only_ask_the_same_are_conflicts_and_stay():
    assert pairs([ask("a", "yes"), ask("a", "no"), ask("a", "no")]) == ([(2, 1)], [(1, 0, "answer")])


def test_another_solution_is_a_conflict_even_if_it_is_not_compared():
    rows = [{"prompt": "1+1", "solution": "2"}, {"prompt": "1+1", "solution": "3"}, {"prompt": "1+1"}]
    assert pairs(rows, ["prompt"]) == ([], [(1, 0, "solution"), (2, 0, "solution")])


def test_another_label_is_another_row():
    assert pairs([ask("a", label=True), ask("a", label=False)]) == ([], [(1, 0, "solution")])


@pytest.mark.parametrize("more", [{"system": "brief"}, {"tools": [{"name": "time"}]}])
def test_another_system_prompt_or_tool_is_another_row(more):
    assert pairs([ask("a"), ask("a", **more)]) == ([], [])


def test_prompt_alone_removes_whatever_is_answered():
    assert pairs([ask("a", "yes"), ask("a", "no")], ["prompt"]) == ([(1, 0)], [])


def test_answer_alone_removes_whatever_is_asked():
    assert pairs([ask("a"), ask("b")], ["answer"]) == ([(1, 0)], [])


def test_the_longest_stays_when_it_is_asked_for():
    rows = [ask("a"), ask("a", "yes, surely"), ask("a", "no")]
    assert pairs(rows, ["prompt"], Keep.longest)[0] == [(0, 1), (2, 1)]


@pytest.mark.parametrize(
    ("one", "other"), [("Hi  there", "hi there "), ("ＡＢＣ", "abc"), ("a\u200bb", "ab"), ("a\u3000b", "a b"), ("a\nb", "a b")]
)
def test_spellings_are_the_same_only_if_asked(one, other):
    rows = [ask(one), ask(other)]
    assert pairs(rows)[0] == []
    assert pairs(rows, normalize=True)[0] == [(1, 0)]


@pytest.mark.parametrize(("one", "other"), [("5²", "52"), ("H₂O", "H2O"), ("1½", "11/2"), ("a?", "a"), ("不", "")])
def test_normalizing_keeps_apart_what_means_something_else(one, other):
    assert pairs([ask(one), ask(other)], normalize=True)[0] == []


def test_final_punctuation_goes_only_where_asked():
    table = pa.table({"text": pa.array(["好吗？！ ", "C#", "3.5.", "…"], pa.large_string())})
    assert normal(table, ["text"], case=False, ends=True)["text"].to_pylist() == ["好吗?", "C#", "3.5", ""]


def test_no_rows_have_no_duplicates():
    assert pairs([]) == ([], [])


def test_chats_are_compared_by_their_turns():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}]
    assert pairs([{"messages": chat}, {"messages": list(chat)}, ask("a")])[0] == [(1, 0), (2, 0)]


@given(rows_of_few, st.sampled_from(list(Keep)), st.booleans())
def test_what_is_left_has_no_duplicates(rows, keep, normalize):
    gone = {one for one, _ in pairs(rows, keep=keep, normalize=normalize)[0]}
    left = [row for place, row in enumerate(rows) if place not in gone]
    assert pairs(left, keep=keep, normalize=normalize)[0] == []


@given(rows_of_few, st.integers(1, 12))
def test_the_size_of_tables_does_not_matter(rows, size):
    assert pairs(rows, size=size) == pairs(rows, size=100)


@given(rows_of_few, st.sampled_from(list(Keep)))
def test_exactly_one_row_of_each_text_stays(rows, keep):
    removed, _ = pairs(rows, keep=keep)
    keys = [(row["prompt"], row["response"] or "", row["solution"]) for row in rows]
    gone = {one for one, _ in removed}
    assert all(keys[one] == keys[other] and other not in gone for one, other in removed)
    assert sorted(map(repr, {*keys})) == sorted(repr(key) for place, key in enumerate(keys) if place not in gone)


@given(rows_of_few, st.randoms(use_true_random=False))
def test_the_step_does_not_depend_on_the_order_of_its_rows(rows, draw: random.Random):
    (table,) = tables(enumerate([*rows, ask("a")], 1), 100)
    mixed = table.take(draw.sample(range(len(table)), len(table)))
    one, other = (duplicates(each, BOTH, Keep.first).sort_by("id").to_pylist() for each in (table, mixed))
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompt": "q", "chosen": "a\nb", "rejected": "c"}, {"prompt": "q", "chosen": "a", "rejected": "b\nc"}),
        (
            {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]},
            {"messages": [{"role": "user", "content": "be brief\nhi"}]},
        ),
        (
            {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        ),
        ({"prompt": "hi", "system": "be brief"}, {"prompt": "be brief\nhi"}),
        ({"prompt": "q", "reference": ["a", "b"]}, {"prompt": "q", "reference": ["a\nb"]}),
    ],
)
def test_rows_whose_texts_are_cut_otherwise_are_not_the_same(one, other):
    assert pairs([one, other])[0] == []


def test_a_conversation_and_the_same_as_plain_fields_are_the_same():
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert pairs([{"messages": turns}, ask("a", "b", system="s")])[0] == [(1, 0)]


CALL = {"type": "function", "function": {"name": "f", "arguments": {"city": "Paris"}}}


def chat(response="yes", call=None, **more):
    answer = {"role": "assistant", "content": "", "tool_calls": [call]} if call else {"role": "assistant", "content": response}
    return {"messages": [{"role": "user", "content": "a"}, answer | more]}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chat(weight=0), chat(weight=1)),
        (chat(weight=0), chat()),
        (chat(call=CALL), chat(call=CALL | {"function": {"name": "f", "arguments": {"city": "Rome"}}})),
        (chat() | {"tools": [{"name": "a"}]}, chat() | {"tools": [{"name": "b"}]}),
        (chat() | {"system": "a"}, chat() | {"system": "b"}),
    ],
)
def test_what_is_learned_or_called_and_what_stands_before_is_compared(one, other, normalize):
    assert pairs([one, other], normalize=normalize)[0] == []
    assert pairs([one, dict(one)], normalize=normalize)[0] == [(1, 0)]


def test_a_weight_of_one_is_none_and_a_prompt_alone_does_not_ask_for_it():
    assert pairs([chat(weight=1), chat()])[0] == [(1, 0)]
    assert pairs([chat(weight=0), chat()], ["prompt"])[0] == [(1, 0)]


def test_answers_within_the_conversation_of_a_pair_are_compared():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    other = [turns[0], {"role": "assistant", "content": "d"}, turns[2]]
    rows = [{"messages": each, "chosen": "x", "rejected": "y"} for each in (turns, other, turns)]
    assert pairs(rows)[0] == [(2, 0)]


def test_a_system_text_beside_the_turns_is_the_same_as_one_among_them():
    turns = [{"role": "system", "content": "s"}, *chat()["messages"]]
    assert pairs([{"messages": turns}, chat() | {"system": "s"}, {"messages": turns, "system": "s"}])[0] == [(1, 0), (2, 0)]
