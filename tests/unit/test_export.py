"""Files for other programs: reading them again gives the same rows, or one line says why they cannot be."""

from __future__ import annotations

import json

import pytest

from mlops_llm.data.export import Form, write
from mlops_llm.data.kinds import Kind, own
from mlops_llm.data.read import read_path
from mlops_llm.errors import UserError

USER, BOT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": {}}}]}


def exported(tmp_path, rows, form):
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / f"out.{'json' if form in (Form.alpaca, Form.sharegpt) else form.name}"
    return read_path(write(read_path(source), Kind.sft, form, path)).rows


def refused(tmp_path, row, form) -> str:
    with pytest.raises(UserError) as caught:
        exported(tmp_path, [row], form)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", [Form.csv, Form.parquet, Form.jsonl, Form.json])
@pytest.mark.parametrize(
    "more",
    [
        {"meta:json": "hello"},
        {"meta:json": "[1]", "meta": "x"},
        {"prompt:json": "zz"},
        {"1": "a", "": "b", " ": "c", "nan": "d"},
        {"big": 2**70, "low": -(2**63) - 1},
        {"lone": "\ud800", "nested": {"\ud800": ["\udc00"]}},
        {"n": None, "i": 3, "f": 0.5, "b": True},
    ],
)
def test_whatever_a_field_is_called_and_holds_comes_back(tmp_path, form, more):
    rows = [{"prompt": "p", "response": "r", **more}, {"prompt": "q", "response": "s", **more}]
    assert exported(tmp_path, rows, form) == rows


@pytest.mark.parametrize(("form", "name"), [(Form.csv, "k" * 101), (Form.csv, "a\ud800"), (Form.parquet, "a\ud800")])
def test_a_name_that_no_column_can_have_is_refused(tmp_path, form, name):
    line = refused(tmp_path, {"prompt": "p", "response": "r", name: "x"}, form)
    assert "has a name that no column can have; export as jsonl: op.form=jsonl" in line and line.isascii()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"messages": [USER, CALL], "tools": [{"name": "w"}]},
            "has tools, which alpaca cannot hold; export it with op.form=sharegpt",
        ),
        (
            {"messages": [USER, BOT], "tools": [{"name": "w"}]},
            "has tools, which alpaca cannot hold; export it with op.form=sharegpt",
        ),
        ({"messages": [USER, CALL | {"content": "wait"}]}, "has tools, which alpaca cannot hold; export it with op.form=jsonl"),
        (
            {"messages": [USER, BOT | {"weight": 0}]},
            "has a turn with 'weight', which alpaca cannot hold; export it with op.form=sharegpt",
        ),
        ({"messages": [USER | {"name": "bob"}, BOT]}, "has a turn with 'name', which alpaca cannot hold"),
        ({"messages": [{"role": "system", "content": ""}, USER, BOT]}, "has an empty system turn, which alpaca cannot hold"),
        ({"messages": [USER, BOT, USER, BOT]}, "has several turns, which alpaca cannot hold; export it with op.form=sharegpt"),
        (
            {"prompt": "p", "response": "r", "input": "precious", "output": "gold"},
            "has a field 'input' beside the conversation, which alpaca cannot hold; export it with op.form=sharegpt",
        ),
        (
            {"messages": [USER, BOT], "prompt": "p"},
            "has a field 'prompt' beside the conversation, which alpaca cannot hold; export it with op.form=jsonl",
        ),
    ],
)
def test_what_alpaca_cannot_hold_is_refused_with_the_form_that_can(tmp_path, row, said):
    assert said in refused(tmp_path, row, Form.alpaca)
    if "op.form=sharegpt" in said:
        (back,) = exported(tmp_path, [row], Form.sharegpt)
        assert own(back, Kind.sft, "here") == own(row, Kind.sft, "here")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [USER, CALL | {"content": "wait"}]}, "has a text beside a tool call, which sharegpt cannot hold"),
        ({"messages": [USER | {"value": "x"}, BOT]}, "has a turn with 'value', which sharegpt cannot hold"),
        ({"messages": [USER, BOT], "prompt": "p"}, "has a field 'prompt' beside the conversation, which sharegpt cannot hold"),
    ],
)
def test_what_sharegpt_cannot_hold_is_refused(tmp_path, row, said):
    assert said in refused(tmp_path, row, Form.sharegpt)


@pytest.mark.parametrize("form", [Form.alpaca, Form.sharegpt])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "response": "r", "system": "s", "id": 1},
        {"instruction": "p", "input": "i", "output": "r", "id": 1},
        {"question": "p", "answer": "r"},
        {"prompt": "p", "completion": "r"},
        {"messages": [USER, BOT | {"weight": 1, "name": None}], "system": "s"},
    ],
)
def test_conversations_come_back(tmp_path, form, row):
    (back,) = exported(tmp_path, [row], form)
    if "messages" in row:
        row = {"prompt": "u", "response": "a", "system": "s"}
    assert own(back, Kind.sft, "here") == own(row, Kind.sft, "here")


def test_rows_of_other_kinds_have_no_such_form(jsonl, tmp_path):
    source = read_path(jsonl([{"prompt": "p"}]))
    with pytest.raises(UserError, match="rows of kind ppo are no conversations"):
        write(source, Kind.ppo, Form.alpaca, tmp_path / "out.json")
