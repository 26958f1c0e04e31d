"""What rows of each kind ask, and what answers are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.eval.questions import first, question

TURNS = [{"role": "system", "content": "客服"}, {"role": "user", "content": "一"}, {"role": "assistant", "content": "二"}]


def source(*rows: dict[str, Any]) -> Source:
    return Source("rows", Path("rows.jsonl"), "rows.jsonl", list(rows), list(range(1, len(rows) + 1)), "raw")


@pytest.mark.parametrize(
    ("row", "kind", "asked", "references"),
    [
        ({"prompt": "问", "response": "答"}, Kind.sft, ["问"], ("答",)),
        ({"messages": [*TURNS, *TURNS[1:]]}, Kind.sft, ["客服", "一", "二", "一"], ("二",)),
        ({"prompt": "问", "chosen": "好", "rejected": "坏"}, Kind.dpo, ["问"], ("好",)),
        ({"prompt": "问", "response": "好", "label": True}, Kind.kto, ["问"], ("好",)),
        ({"prompt": "问", "response": "坏", "label": False}, Kind.kto, ["问"], ()),
        ({"prompt": "1+1", "solution": "2"}, Kind.grpo, ["1+1"], ("2",)),
        ({"prompt": "问"}, Kind.ppo, ["问"], ()),
        ({"prompt": "问", "reference": "答"}, Kind.eval, ["问"], ("答",)),
        ({"prompt": "问", "reference": ["答", " ", 8]}, Kind.eval, ["问"], ("答", "8")),
        ({"messages": TURNS}, Kind.eval, ["客服", "一"], ("二",)),
        ({"prompt": "问", "label": "物流"}, Kind.eval, ["问"], ("物流",)),
        ({"prompt": "问", "label": "物流", "reference": "答"}, Kind.eval, ["问"], ("答",)),
        ({"prompt": "问", "reference": 8.5, "label": "数"}, Kind.eval, ["问"], ("8.5",)),
        ({"prompt": "问", "references": ["答", "回答"], "label": 3}, Kind.eval, ["问"], ("答", "回答")),
        ({"prompt": "问", "answer": "答", "solution": "解"}, Kind.eval, ["问"], ("答",)),
        ({"prompt": "问", "answer": None, "solution": 72}, Kind.eval, ["问"], ("72",)),
        ({"question": "问", "references": ["答"]}, Kind.eval, ["问"], ("答",)),
        ({"question": "问", "answer": "7 + 1\n#### 8"}, Kind.eval, ["问"], ("7 + 1\n#### 8",)),
        ({"messages": TURNS[:2], "reference": ["二", "贰"]}, Kind.eval, ["客服", "一"], ("二", "贰")),
        ({"prompt": TURNS[:2], "reference": "二"}, Kind.eval, ["客服", "一"], ("二",)),
        ({"question": "1+1?", "choices": ["1", "2"], "answer": 1}, Kind.eval, ["1+1?\nA. 1\nB. 2"], ("B",)),
    ],
)
def test_a_row_asks_and_tells(row, kind, asked, references):
    found = question(row, kind, "here")
    assert [turn["content"] for turn in found.turns] == asked and found.text == asked[-1]
    assert found.references == references


def test_a_row_tells_its_class_and_more_of_itself():
    row = {"prompt": "问", "label": 3, "metadata": {"topic": "物流", "level": 2, "hard": True, "tags": ["a"], "none": None}}
    found = question(row, Kind.eval, "")
    assert found.label == "3" and found.metadata == {"topic": "物流", "level": "2", "hard": "True"}
    for row in ({"prompt": "问"}, {"prompt": "问", "metadata": "x"}, {"prompt": "问", "label": None}):
        found = question(row, Kind.eval, "")
        assert (found.label, dict(found.metadata), found.references) == (None, {}, ())


def test_tools_stay_with_their_question():
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert question({"messages": TURNS, "tools": tools}, Kind.sft, "").tools == tools


def test_the_first_rows_are_asked_and_named_as_a_part_of_their_dataset():
    rows = source(*({"prompt": f"问{place}", "response": "答"} for place in range(5)))
    few, all_of_them = (first(rows, range(5), (Kind.sft,), most, "dataset") for most in (3, 9))
    assert [one.text for one in few.asked] == ["问0", "问1", "问2"] and len(all_of_them.asked) == 5
    named = few.as_input()
    assert (named.name, named.context, named.rows) == ("rows[3]", "evaluation", 3)
    assert all_of_them.as_input().name == "rows"
    other = first(rows, [3, 4, 0], (Kind.sft,), 3, "dataset")
    assert other.as_input().digests["canonical"] != named.digests["canonical"]


def test_answers_that_are_not_wanted_are_passed_over():
    rows = source(*({"prompt": str(place), "response": "答", "label": place % 2 == 1} for place in range(6)))
    assert first(rows, range(6), (Kind.kto, Kind.dpo), 2, "dataset").rows == [1, 3]
    with pytest.raises(UserError, match=r"rows\.jsonl: no row has an answer to compare with; .* dataset=REF"):
        first(rows, [0, 2], (Kind.kto,), 2, "dataset")


def test_a_row_without_a_reference_is_named():
    rows = source({"prompt": "问", "reference": "答"}, {"prompt": "问", "reference": ""})
    with pytest.raises(UserError, match=r"rows\.jsonl line 2: has no answer to compare with; .*evaluate\.dataset=REF"):
        first(rows, range(2), (), 2, "evaluate.dataset")
    assert first(rows, range(2), (), 1, "dataset").rows == [0]
