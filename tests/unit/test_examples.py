"""What training methods see of rows, on the tokenizer of the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.models.template import IGNORED
from mlops_llm.train import examples
from mlops_llm.train.algorithms.kto import neighbours
from mlops_llm.train.examples import Answered, Pair

PAIR = {"prompt": "几点开门", "chosen": "九点开门。", "rejected": "不知道"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokens.tokenizer("tiny")


def source(rows: list[dict[str, Any]]) -> Source:
    return Source("rows", Path("rows.jsonl"), "rows.jsonl", rows, list(range(1, len(rows) + 1)), "")


def test_a_pair_shares_its_prompt_and_ends_both_answers(tokenizer):
    (pair,) = examples.pairs(tokenizer, source([PAIR]), [0], 512)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "几点开门"}], add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(pair.prompt) == asked
    assert tokenizer.decode(pair.chosen).strip() == "九点开门。<|im_end|>"
    assert tokenizer.decode(pair.rejected).strip() == "不知道<|im_end|>"
    assert pair.ids == [*pair.prompt, *pair.chosen, *pair.prompt, *pair.rejected]
    assert [label for label in pair.labels if label != IGNORED] == [*pair.chosen, *pair.rejected]
    assert len(pair.labels) == len(pair.ids) and pair.trained == len(pair.chosen) + len(pair.rejected)


def test_answers_that_begin_alike_do_not_move_into_the_prompt(tokenizer):
    (pair,) = examples.pairs(tokenizer, source([{**PAIR, "rejected": "九点关门。"}]), [0], 512)
    assert tokenizer.decode(pair.chosen).startswith("九点开门") and tokenizer.decode(pair.rejected).startswith("九点关门")


def test_earlier_answers_of_a_conversation_belong_to_the_prompt(tokenizer):
    turns = [
        {"role": "system", "content": "你是客服"},
        {"role": "user", "content": "在吗"},
        {"role": "assistant", "content": "在的"},
        {"role": "user", "content": "几点开门"},
    ]
    (pair,) = examples.pairs(tokenizer, source([{"messages": turns, "chosen": "九点", "rejected": "不说"}]), [0], 512)
    assert "在的" in tokenizer.decode(pair.prompt) and tokenizer.decode(pair.chosen).strip() == "九点<|im_end|>"


def test_rows_cut_before_an_answer_are_left_out_and_the_rest_is_counted(tokenizer):
    long = {**PAIR, "prompt": "长" * 100}
    kept = examples.pairs(tokenizer, source([PAIR, long]), [0, 1], 40)
    assert len(kept) == 1 and kept[0].cut == 0
    (cut,) = examples.pairs(tokenizer, source([PAIR]), [0], len(kept[0].prompt) + 2)
    assert (len(cut.chosen), len(cut.rejected)) == (2, 2) and cut.cut == kept[0].trained - 4
    with pytest.raises(UserError, match="no row keeps a token of its answers within 10 tokens"):
        examples.pairs(tokenizer, source([long]), [0], 10)


def test_a_row_that_is_no_pair_is_named(tokenizer):
    with pytest.raises(UserError) as caught:
        examples.pairs(tokenizer, source([PAIR, {"prompt": "a", "chosen": "b"}]), [0, 1], 512)
    assert "rows.jsonl" in caught.value.where and "rejected" in caught.value.what


def test_judged_answers_of_both_forms(tokenizer):
    kto = [{"prompt": "几点开门", "response": "九点", "label": True}, {"prompt": "几点开门", "response": "哼", "label": False}]
    found = examples.judged(tokenizer, source([*kto, PAIR]), [0, 1, 2], 512)
    assert [(tokenizer.decode(one.answer).strip().removesuffix("<|im_end|>"), one.wanted) for one in found] == [
        ("九点", True), ("哼", False), ("九点开门。", True), ("不知道", False),
    ]  # fmt: skip


def test_the_same_answer_with_the_other_label_is_another_example():
    one, other = Answered([1, 2], [3], wanted=True), Answered([1, 2], [3], wanted=False)
    assert one.ids == other.ids and one.labels != other.labels


def test_pairs_differ_by_which_answer_is_chosen():
    assert Pair([1], [2], [3]).labels != Pair([1], [3], [2]).labels


def test_neighbours_stay_within_their_batch():
    assert neighbours([[1], [2], [3], [4], [5]], 2) == [[2], [1], [4], [3], [5]]


@pytest.mark.parametrize(
    ("row", "kind"),
    [(PAIR, Kind.dpo), ({"prompt": "a", "response": "b", "label": True}, Kind.kto), ({"prompt": "a"}, Kind.kto)],
)
def test_the_kind_of_a_row_is_one_of_the_methods(row, kind):
    assert examples.kind_of(row, (Kind.kto, Kind.dpo)) is kind
