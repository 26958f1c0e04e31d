from __future__ import annotations

import pytest

from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind, infer, of_rows, own
from mlops_llm.data.read import Read, read_path, shipped
from mlops_llm.errors import UserError

USER, BOT = {"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}
HUMAN, GPT = {"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}
CALL = {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "上海"}}'}
SHAPES = {
    "ours": (Kind.sft, {"prompt": "问", "response": "答"}, {"prompt": "问", "response": "答"}),
    "completion": (Kind.sft, {"prompt": "问", "completion": "答"}, {"prompt": "问", "response": "答"}),
    "alpaca": (Kind.sft, {"instruction": "问", "input": "", "output": "答"}, {"prompt": "问", "response": "答"}),
    "alpaca with input and system": (
        Kind.sft,
        {"instruction": "问", "input": "文", "output": "答", "system": "你是店员"},
        {"prompt": "问\n文", "response": "答", "system": "你是店员"},
    ),
    "sharegpt": (Kind.sft, {"conversations": [HUMAN, GPT]}, {"prompt": "问", "response": "答"}),
    "sharegpt of several turns": (
        Kind.sft,
        {"conversations": [HUMAN, GPT, HUMAN, GPT], "id": "7"},
        {"messages": [USER, BOT, USER, BOT], "id": "7"},
    ),
    "sharegpt with a call": (
        Kind.sft,
        {"conversations": [HUMAN, CALL, {"from": "observation", "value": "晴"}, GPT], "tools": '[{"name": "weather"}]'},
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "上海"}}}],
                },
                {"role": "tool", "content": "晴"},
                BOT,
            ],
            "tools": [{"name": "weather"}],
        },
    ),
    "messages": (Kind.sft, {"messages": [USER, BOT]}, {"messages": [USER, BOT]}),
    "gsm8k": (Kind.sft, {"question": "问", "answer": "答 #### 7"}, {"prompt": "问", "response": "答 #### 7"}),
    "pairs": (Kind.dpo, {"prompt": "问", "chosen": "好", "rejected": "坏"}, {"prompt": "问", "chosen": "好", "rejected": "坏"}),
    "alpaca pairs": (
        Kind.dpo,
        {"instruction": "问", "input": "文", "chosen": "好", "rejected": "坏"},
        {"prompt": "问\n文", "chosen": "好", "rejected": "坏"},
    ),
    "sharegpt pairs": (
        Kind.dpo,
        {"conversations": [HUMAN], "chosen": {"from": "gpt", "value": "好"}, "rejected": {"from": "gpt", "value": "坏"}},
        {"prompt": "问", "chosen": "好", "rejected": "坏"},
    ),
    "pairs of whole conversations": (
        Kind.dpo,
        {"chosen": [USER, BOT], "rejected": [USER, {"role": "assistant", "content": "坏"}]},
        {"prompt": "问", "chosen": "答", "rejected": "坏"},
    ),
    "pairs after several turns": (
        Kind.dpo,
        {"messages": [USER, BOT, USER], "chosen": "好", "rejected": "坏"},
        {"messages": [USER, BOT, USER], "chosen": "好", "rejected": "坏"},
    ),
    "kto": (Kind.kto, {"prompt": "问", "completion": "答", "label": False}, {"prompt": "问", "response": "答", "label": False}),
    "kto of sharegpt": (
        Kind.kto,
        {"conversations": [HUMAN, GPT], "kto_tag": True},
        {"prompt": "问", "response": "答", "label": True},
    ),
    "prompts": (Kind.ppo, {"prompt": "问", "topic": "x"}, {"prompt": "问", "topic": "x"}),
    "prompts as turns": (Kind.ppo, {"messages": [USER]}, {"prompt": "问"}),
    "solutions": (Kind.grpo, {"prompt": "问", "solution": "7"}, {"prompt": "问", "solution": "7"}),
    "solutions as numbers": (Kind.grpo, {"question": "问", "solution": 7}, {"prompt": "问", "solution": "7"}),
    "references": (Kind.eval, {"prompt": "问", "reference": ["a", "b"]}, {"prompt": "问", "reference": ["a", "b"]}),
    "mmlu": (
        Kind.eval,
        {"question": "问", "choice0": "一", "choice1": "二", "answer": "1"},
        {"prompt": "问\nA. 一\nB. 二", "label": "B"},
    ),
    "humaneval": (
        Kind.eval,
        {"task_id": "H/0", "prompt": "def f():", "canonical_solution": "    return 1", "test": "assert f()"},
        {"prompt": "def f():", "reference": "    return 1", "metadata": {"task_id": "H/0", "test": "assert f()"}},
    ),
}


@pytest.mark.parametrize(("kind", "row", "wanted"), SHAPES.values(), ids=SHAPES)
def test_a_row_of_a_known_shape_is_told_and_turned_into_our_fields(kind, row, wanted):
    assert infer(row) is kind
    assert own(row, kind, "row") == wanted
    assert own(wanted, kind, "row") == wanted, "turning it again changes nothing"


def test_gsm8k_gives_the_solution_after_its_mark():
    row = {"question": "多少?", "answer": "3 + 4 = <<3+4=7>>7\n#### 1,007"}
    assert own(row, Kind.grpo, "row") == {"prompt": "多少?", "solution": "1,007"}


@pytest.mark.parametrize("name", ["sales_sft", "sales_dpo", "ppo_general", "sales_grpo", "sales_eval", "math_sft", "math_grpo"])
def test_rows_that_ship_have_their_kinds_own_fields_already(name):
    ending = ".json" if name == "ppo_general" else ".jsonl"
    rows = read_path(shipped() / f"{name}{ending}", Read()).rows
    kind = of_rows(rows, name)
    assert kind.name == name.rpartition("_")[2] or (name, kind) == ("ppo_general", Kind.ppo)
    assert all(own(row, kind, "row") is row for row in rows)


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (Kind.sft, {"prompt": "a", "respons": "b"}, "has no field 'response' (did you mean respons?)"),
        (Kind.dpo, {"prompt": "a", "chosen": "", "rejected": "b"}, "field 'chosen' is empty"),
        (Kind.dpo, {"prompt": "a", "chosen": 3, "rejected": "b"}, "field 'chosen' is a number, not a text"),
        (Kind.kto, {"prompt": "a", "response": "b", "label": "maybe"}, "field 'label' is 'maybe', not true or false"),
        (Kind.grpo, {"prompt": "a"}, "has no 'solution'"),
        (Kind.eval, {"question": "a", "choices": ["x", "y"], "answer": 5}, "field 'answer' is '5', none of the 2 choices"),
        (Kind.ppo, {"text": "a"}, "has no field 'prompt'"),
        (Kind.sft, {"conversations": [HUMAN, {"from": "function_call", "value": "{"}]}, "is a text that is not JSON"),
        (Kind.sft, {"conversations": [HUMAN, {"from": "function_call", "value": "[1]"}]}, "is no function call"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(kind, row, said):
    with pytest.raises(UserError) as caught:
        own(row, kind, "rows.jsonl line 3")
    assert said in str(caught.value) and str(caught.value).startswith("rows.jsonl line 3: ")


def test_rows_that_tell_nothing_ask_for_their_columns():
    with pytest.raises(UserError, match=r"x\.csv: what the rows are for cannot be told from their fields \(col1, col2\)"):
        of_rows([{"col1": "a", "col2": "b"}], "x.csv")
    assert of_rows([{"col1": "a"}], "x.csv", Kind.ppo) is Kind.ppo


def test_labels_and_conversations_of_a_table_are_told_from_their_texts():
    assert infer({"prompt": "a", "response": "b", "label": "False"}) is Kind.kto
    assert infer({"prompt": "a", "label": "true"}) is Kind.eval
    assert infer({"messages": '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'}) is Kind.sft
    assert infer({"messages": "[broken"}) is None


@pytest.mark.parametrize(
    ("kind", "row", "wanted"),
    [
        (Kind.sft, {"instruction": "问", "output": "答", "label": "甲", "reference": "r"},
         {"prompt": "问", "response": "答", "label": "甲", "reference": "r"}),
        (Kind.grpo, {"question": "1+1", "solution": "2", "answer": "想"}, {"prompt": "1+1", "solution": "2", "answer": "想"}),
        (Kind.kto, {"question": "问", "answer": "答", "kto_tag": True, "solution": 3},
         {"prompt": "问", "response": "答", "label": True, "solution": 3}),
        (Kind.eval, {"question": "问", "answer": "A", "choices": ["x", "y"], "output": "z"},
         {"prompt": "问\nA. x\nB. y", "label": "A", "output": "z"}),
    ],
)  # fmt: skip
def test_fields_that_say_something_else_stay(kind, row, wanted):
    assert own(row, kind, "here") == wanted


def test_the_history_of_an_alpaca_row_is_part_of_the_conversation():
    row = {"instruction": "三", "output": "四", "history": [["一", "二"]]}
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "一二三四", strict=True)]
    assert own(row, Kind.sft, "here") == {"messages": turns}
    assert own(row, Kind.ppo, "here") == {"messages": turns[:3]}
    with pytest.raises(UserError, match="history"):
        own(row | {"history": [["一"]]}, Kind.sft, "here")


def test_pairs_that_ask_otherwise_are_refused():
    other = [{"role": "user", "content": "别的"}, BOT]
    with pytest.raises(UserError, match="asks otherwise"):
        own({"chosen": [USER, BOT], "rejected": other}, Kind.dpo, "here")


SYSTEM = {"role": "system", "content": "短"}
BAD = {"role": "assistant", "content": "坏"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
AS_TEXT = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'


def refused(row, kind) -> str:
    with pytest.raises(UserError) as caught:
        own(row, kind, "here")
    assert caught.value.remedy and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [HUMAN, {**GPT, "loss": False}]},
        {"conversations": [HUMAN, {**GPT, "weight": 0}]},
        {"messages": [USER, {**BOT, "weight": 0}]},
        {"messages": [USER, {**BOT, "loss": False}]},
        {"messages": [USER, {**BOT, "loss": False, "weight": None}]},
        {"conversations": [HUMAN, {**GPT, "loss": False, "weight": None}]},
    ],
)
@pytest.mark.parametrize(("kind", "more"), [(Kind.sft, {}), (Kind.kto, {"label": True})])
def test_an_answer_that_is_not_to_be_learned_stays_marked(row, kind, more):
    (view,) = tokens.views(own(row | more, kind, "here"), kind)
    assert view.chat.messages[-1]["weight"] == 0


def test_what_else_is_said_of_a_turn_stays():
    row = {"conversations": [HUMAN | {"name": "bob"}, GPT]}
    assert own(row, Kind.sft, "here") == {"messages": [USER | {"name": "bob"}, BOT]}
    assert own({"messages": [USER | {"name": None}, BOT], "label": True}, Kind.kto, "here")["prompt"] == "问"
    assert (
        own({"conversations": [{"from": "system", "value": ""}, HUMAN, GPT]}, Kind.sft, "here")["messages"][0]["content"] == ""
    )


@pytest.mark.parametrize("tools", [[TOOL], AS_TEXT], ids=["list", "text"])
@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (Kind.sft, {"prompt": "问", "response": "答"}),
        (Kind.sft, {"instruction": "问", "output": "答"}),
        (Kind.sft, {"question": "问", "answer": "答"}),
        (Kind.sft, {"messages": [USER, BOT]}),
        (Kind.kto, {"prompt": "问", "response": "答", "label": True}),
        (Kind.kto, {"conversations": [HUMAN, GPT], "label": True}),
        (Kind.dpo, {"prompt": "问", "chosen": "好", "rejected": "坏"}),
        (
            Kind.dpo,
            {"conversations": [HUMAN], "chosen": {"from": "gpt", "value": "好"}, "rejected": {"from": "gpt", "value": "坏"}},
        ),
        (Kind.dpo, {"messages": [USER, BOT, USER], "chosen": "好", "rejected": "坏"}),
        (Kind.dpo, {"chosen": [USER, BOT], "rejected": [USER, BAD]}),
        (Kind.ppo, {"prompt": "问"}),
        (Kind.ppo, {"messages": [USER]}),
        (Kind.ppo, {"instruction": "问"}),
        (Kind.grpo, {"messages": [USER], "solution": "4"}),
        (Kind.grpo, {"prompt": "问", "solution": "4"}),
        (Kind.eval, {"messages": [USER, BOT, USER]}),
    ],
)
def test_tools_reach_the_model_from_every_form(kind, row, tools):
    mine = own(row | {"tools": tools}, kind, "here")
    assert mine["tools"] == [TOOL]
    assert own(mine, kind, "here") == mine
    assert all(view.chat.tools == [TOOL] for view in tokens.views(mine, kind))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, BOT]},
        {"conversations": [HUMAN, GPT]},
        {"prompt": "问", "response": "答"},
        {"instruction": "问", "output": "答"},
    ],
)
@pytest.mark.parametrize(("kind", "more"), [(Kind.sft, {}), (Kind.kto, {"label": False})])
def test_a_system_text_beside_the_turns_reaches_the_model(row, kind, more):
    (view,) = tokens.views(own(row | {"system": "短"} | more, kind, "here"), kind)
    assert view.chat.messages == [SYSTEM, USER, BOT]


def test_pairs_of_whole_conversations_with_their_prompt_keep_all_turns():
    more = {"role": "user", "content": "还有"}
    row = {
        "prompt": "问",
        "chosen": [USER, BOT, more, BOT],
        "rejected": [USER, BOT, more, BAD],
        "messages": [USER, BOT, more, BOT],
    }
    wanted = {"messages": [USER, BOT, more], "chosen": "答", "rejected": "坏"}
    assert own(row, Kind.dpo, "here") == wanted
    assert own(wanted, Kind.dpo, "here") == wanted
    short = {"prompt": "问", "chosen": [USER, BOT], "rejected": [USER, BAD], "messages": [USER, BOT], "score_chosen": 8.0}
    assert own(short, Kind.dpo, "here") == {"prompt": "问", "chosen": "答", "rejected": "坏", "score_chosen": 8.0}
    assert "does not begin with 'prompt'" in refused(row | {"prompt": "别的"}, Kind.dpo)
    assert "asks otherwise" in refused(row | {"rejected": [USER, BAD, more, BAD]}, Kind.dpo)
    with_system = {"prompt": "问", "chosen": [SYSTEM, USER, BOT], "rejected": [SYSTEM, USER, BAD]}
    assert own(with_system, Kind.dpo, "here") == {"messages": [SYSTEM, USER], "chosen": "答", "rejected": "坏"}
    turns = {"messages": [SYSTEM, USER], "chosen": [USER, BOT], "rejected": [USER, BAD]}
    assert own(turns, Kind.dpo, "here") == {"messages": [SYSTEM, USER], "chosen": "答", "rejected": "坏"}


CALLING = {"role": "assistant", "content": "好", "tool_calls": [{"type": "function", "function": {"name": "weather"}}]}


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (Kind.dpo, {"messages": [USER, BOT], "chosen": "x", "rejected": "y"}, "has an answer before 'chosen'"),
        (Kind.dpo, {"messages": [USER], "chosen": [CALLING], "rejected": [BOT]}, "field 'chosen' calls a tool"),
        (Kind.dpo, {"messages": [USER], "chosen": [BOT], "rejected": USER}, "field 'rejected' ends with a turn by 'user'"),
        (Kind.kto, {"messages": [USER, BOT], "response": "x", "label": True}, "field 'response' and messages, label say"),
        (Kind.kto, {"messages": [USER], "label": True}, "the last turn is by 'user'"),
        (
            Kind.sft,
            {"messages": [USER, BOT | {"tool_calls": "f"}]},
            "field 'messages[1].tool_calls' is a text, not a list of calls",
        ),
        (Kind.sft, {"instruction": "问", "output": "答", "response": "x"}, "field 'response' and instruction, output say"),
        (
            Kind.sft,
            {"messages": [SYSTEM, USER, BOT], "system": "长"},
            "field 'system' ('长') and the system turn ('短') differ",
        ),
        (Kind.sft, {"conversations": [{"from": "system", "value": "短"}, HUMAN, GPT], "system": "长"}, "('短') differ"),
        (Kind.eval, {"messages": [USER, BOT], "reference": "x"}, "has an answer beside 'reference'"),
        (Kind.eval, {"messages": [USER, CALLING]}, "ends with a call of a tool"),
    ],
)
def test_what_would_be_lost_is_refused(kind, row, said):
    assert said in refused(row, kind)


def test_the_last_answer_is_left_out_where_the_model_is_to_answer_and_is_the_reference_of_an_evaluation():
    row = {"messages": [USER, BOT, USER, BAD]}
    assert own(row, Kind.ppo, "here") == {"messages": [USER, BOT, USER]}
    assert own({"messages": [USER, BOT]}, Kind.ppo, "here") == {"prompt": "问"}
    assert own(row | {"solution": "4"}, Kind.grpo, "here") == {"messages": [USER, BOT, USER], "solution": "4"}
    assert own(row, Kind.eval, "here") == {"messages": [USER, BOT, USER], "reference": "坏"}
    assert own(row | {"label": True}, Kind.kto, "here") == row | {"label": True}
    assert own({"prompt": [USER], "answer": "42", "output": "z"}, Kind.ppo, "here") == {
        "prompt": "问",
        "answer": "42",
        "output": "z",
    }


@pytest.mark.parametrize(
    "row",
    [{"messages": '[{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]'}, {"messages": [HUMAN, GPT]}],
)
def test_messages_in_another_form_become_ours(row):
    assert own(row, Kind.sft, "here") == {"prompt": "问", "response": "答"}


ARC = {"text": ["一", "二"], "label": ["1", "2"]}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"choices": [str(n) for n in range(12)], "answer": 11}, "L"),
        ({"choices": ARC, "answerKey": "2", "id": 3}, "B"),
        ({"choices": {"text": ["一", "二"], "label": ["A", "B"]}, "answer": "A"}, "A"),
        ({"choices": '["一", "二"]', "answer": "1"}, "B"),
        ({f"choice{n}": str(n) for n in range(12)} | {"answer": "10"}, "K"),
        ({"choice0": "一", "choice1": None, "choice2": "二", "answer": 2}, "B"),
    ],
)
def test_choices_of_any_form_and_number_are_all_listed(row, wanted):
    mine = own(row | {"question": "问"}, Kind.eval, "here")
    count = 12 if "11" in str(row) else 2
    assert mine["label"] == wanted and len(mine["prompt"].splitlines()) == count + 1
    assert not [name for name in mine if name.startswith(("choice", "answer", "question"))]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"choices": ["x", "y"], "answer": "²"}, "none of the 2 choices"),
        ({"choices": ["x", "y"], "answer": ""}, "none of the 2 choices"),
        ({"choices": ["x", "y"], "answer": "AB"}, "none of the 2 choices"),
        ({"choices": ["x"] * 27, "answer": "A"}, "has 27 choices"),
        ({"choices": {"a": 1}, "answer": "A"}, "field 'choices' is no list of choices"),
        ({"choices": {"text": ["x"], "label": ["A", "B"]}, "answer": "A"}, "field 'choices' is no list of choices"),
        ({"choices": "xy", "answer": "A"}, "field 'choices' is a text that is not JSON"),
    ],
)
def test_choices_that_cannot_be_are_refused(row, said):
    assert said in refused(row | {"question": "问"}, Kind.eval)
