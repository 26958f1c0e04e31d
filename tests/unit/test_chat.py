from __future__ import annotations

import json

import pytest

from mlops_llm.data.chat import ROLES, conversation
from mlops_llm.data.read import read
from mlops_llm.errors import UserError

ASK, SAY = {"role": "user", "content": "几点?"}, {"role": "assistant", "content": "九点"}
SYSTEM = {"role": "system", "content": "简短"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "time", "arguments": {}}}],
}
TOOL = {"role": "tool", "content": "09:00", "name": "time"}
TOOLS = [{"type": "function", "function": {"name": "time", "parameters": {}}}]


def refused(row: dict) -> UserError:
    with pytest.raises(UserError) as caught:
        conversation(row, "rows.jsonl line 7")
    assert caught.value.where == "rows.jsonl line 7"
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "几点?", "response": "九点"},
        {"prompt": "几点?", "completion": "九点"},
        {"question": "几点?", "answer": "九点"},
        {"instruction": "几点?", "input": "", "output": "九点"},
        {"instruction": "几点?", "output": "九点"},
        {"messages": [ASK, SAY]},
        {"messages": json.dumps([ASK, SAY])},
        {"conversations": [{"from": "human", "value": "几点?"}, {"from": "gpt", "value": "九点"}]},
        {"conversations": [{"from": "user", "value": "几点?"}, {"from": "assistant", "value": "九点"}]},
        {"prompt": "几点?", "response": "九点", "question": "other", "answer": "other"},
        {"prompt": "几点?", "response": "九点", "completion": "other"},
        {"prompt": "几点?", "response": "九点", "system": None},
    ],
)
def test_every_form_gives_the_same_conversation(row):
    found = conversation(row, "here")
    assert found.messages == [ASK, SAY]
    assert found.tools is None


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "几点?", "response": "九点", "system": "简短"},
        {"question": "几点?", "answer": "九点", "system": "简短"},
        {"messages": [SYSTEM, ASK, SAY]},
        {
            "conversations": [
                {"from": "system", "value": "简短"},
                {"from": "human", "value": "几点?"},
                {"from": "gpt", "value": "九点"},
            ]
        },
    ],
)
def test_a_system_turn_comes_first(row):
    assert conversation(row, "here").messages == [SYSTEM, ASK, SAY]


def test_the_input_of_alpaca_stands_below_the_instruction():
    found = conversation({"instruction": "翻译", "input": "hello", "output": "你好"}, "here")
    assert found.messages[0]["content"] == "翻译\nhello"


def test_spaces_and_other_keys_of_turns_are_kept_and_rows_are_not_changed():
    row = {"messages": [{**ASK, "content": " a \n", "weight": 1}, {**SAY, "content": " b"}]}
    before = json.dumps(row)
    found = conversation(row, "here")
    assert found.messages == row["messages"]
    found.messages[0]["content"] = "changed"
    assert json.dumps(row) == before
    assert conversation({"prompt": " a ", "response": " b\n"}, "here").messages[1]["content"] == " b\n"


class TestTools:
    @pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)], ids=["list", "text"])
    def test_calls_and_answers_of_tools(self, tools):
        found = conversation({"messages": [ASK, CALL, TOOL, SAY], "tools": tools}, "here")
        assert found.messages == [ASK, CALL, TOOL, SAY]
        assert found.tools == TOOLS

    def test_two_tools_may_answer_in_a_row(self):
        assert len(conversation({"messages": [ASK, CALL, TOOL, TOOL, SAY]}, "here").messages) == 5

    @pytest.mark.parametrize("none", [None, "", []])
    def test_no_tools(self, none):
        assert conversation({"messages": [ASK, SAY], "tools": none}, "here").tools is None

    def test_of_sharegpt(self):
        turns = [("human", "几点?"), ("function_call", '{"name": "time"}'), ("observation", "09:00"), ("gpt", "九点")]
        found = conversation({"conversations": [{"from": who, "value": said} for who, said in turns], "tools": TOOLS}, "here")
        assert [turn["role"] for turn in found.messages] == ["user", "assistant", "tool", "assistant"]
        assert found.tools == TOOLS

    @pytest.mark.parametrize(
        ("tools", "said"), [({"a": 1}, "field 'tools' is an object"), ("[x", "field 'tools' is a text that is not JSON")]
    )
    def test_that_are_no_list(self, tools, said):
        assert said in str(refused({"messages": [ASK, SAY], "tools": tools}))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "respones": "b"}, "has no field 'response' (did you mean respones?)"),
        ({"promt": "a", "response": "b"}, "has no field 'prompt' (did you mean promt?)"),
        ({"question": "a"}, "has no field 'answer'"),
        ({"instruction": "a"}, "has no field 'output'"),
        ({}, "has no field 'prompt'"),
        ({"prompt": 3, "response": "b"}, "field 'prompt' is a number, not a text"),
        ({"prompt": "a", "response": None}, "field 'response' is null, not a text"),
        ({"prompt": "a", "response": ["b"]}, "field 'response' is a list, not a text"),
        ({"prompt": "a", "response": {"b": 1}}, "field 'response' is an object, not a text"),
        ({"prompt": "a", "response": True}, "field 'response' is true/false, not a text"),
        ({"prompt": "a", "response": " \n"}, "field 'response' is empty"),
        ({"prompt": "", "response": "b"}, "field 'prompt' is empty"),
        ({"prompt": "a", "response": "b", "system": 3}, "field 'system' is a number, not a text"),
        ({"messages": []}, "field 'messages' is a list, not a list of turns"),
        ({"messages": {"role": "user"}}, "field 'messages' is an object, not a list of turns"),
        ({"messages": "text"}, "field 'messages' is a text that is not JSON"),
        ({"messages": [ASK, {"content": "b"}]}, "field 'messages[1]' has no role"),
        ({"messages": ["a"]}, "field 'messages[0]' has no role"),
        ({"messages": [{"role": "usr", "content": "a"}]}, "field 'messages[0].role' is 'usr' (did you mean user?)"),
        ({"messages": [ASK, {"role": "assistant", "content": 3}]}, "field 'messages[1].content' is a number, not a text"),
        ({"messages": [{"role": "user", "content": None}]}, "field 'messages[0].content' is null, not a text"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, "field 'messages[1].content' is null, not a text"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "field 'conversations[0].from' is 'robot'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "[0].content' is a number, not a text"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_line_field_and_remedy(row, said):
    error = refused(row)
    assert said in str(error)
    assert error.remedy


@pytest.mark.parametrize(
    "row",
    [{"conversations": 3}, {"conversations": [{"from": "human"}]}, {"messages": [ASK, SAY], "tools": 3}],
    ids=["form", "turn", "tools"],
)
def test_these_have_a_remedy_too(row):
    assert refused(row).remedy


def test_a_missing_field_names_what_there_is_and_how_to_map_it():
    line = str(refused({"prompt": "a", "回答": "b"}))
    assert "it has: prompt, 回答" in line
    assert "read.columns.response=COLUMN" in line


@pytest.mark.parametrize(
    "turns",
    [
        [ASK], [SAY, ASK], [ASK, ASK, SAY], [ASK, SAY, SAY], [ASK, SYSTEM, SAY], [SYSTEM, SYSTEM, ASK, SAY], [SYSTEM],
        [ASK, CALL, TOOL],
    ],
)  # fmt: skip
def test_turns_out_of_order_are_refused(turns):
    error = refused({"messages": turns})
    assert "turn" in error.what
    assert error.remedy


@pytest.mark.parametrize("turns", [[ASK, SAY], [SYSTEM, ASK, SAY], [ASK, SAY, ASK, SAY], [ASK, CALL, TOOL, SAY], [SYSTEM, SAY]])
def test_turns_in_order_pass(turns):
    assert conversation({"messages": turns}, "here").messages == turns
    assert {turn["role"] for turn in turns} <= set(ROLES)


def test_an_empty_answer_is_refused_in_messages_too():
    refused({"messages": [ASK, {"role": "assistant", "content": " "}]})


def test_the_input_of_alpaca_must_be_a_text():
    assert "field 'input' is a list" in str(refused({"instruction": "a", "input": ["x"], "output": "b"}))


@pytest.mark.parametrize("other", [{"instruction": "x", "output": "y"}, {"messages": [ASK, SAY]}, {"conversations": []}])
def test_columns_that_a_person_mapped_win_over_other_forms_in_the_row(other):
    # as read.columns={prompt:q,response:a} leaves it
    found = conversation({**other, "q": "Q", "a": "A", "prompt": "Q", "response": "A"}, "here")
    assert [turn["content"] for turn in found.messages] == ["Q", "A"]


def test_the_first_bad_row_is_named_by_its_line_in_the_file(jsonl):
    good = {"prompt": "a", "response": "b"}
    source = read(str(jsonl([good, good, {"prompt": "a"}, {}])))
    with pytest.raises(UserError, match=r"^rows\.jsonl line 3: has no field 'response'"):
        [conversation(row, source.where(place)) for place, row in enumerate(source.rows)]


def test_shipped_rows_are_conversations():
    for ref in ("sales_sft", "sales_sft_val", "math_sft"):
        source = read(ref)
        assert [conversation(row, "").messages[-1]["content"] for row in source.rows] == [
            row["response"] for row in source.rows
        ]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}])
def test_turns_that_are_not_to_be_learned_are_told_apart(mark):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", **mark}]
    turns += [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d", "weight": 1}]
    assert [turn.get("weight") for turn in conversation({"conversations": turns}, "here").messages] == [None, 0, None, None]
