from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.config import Data
from mlops_llm.data.kinds import Kind
from mlops_llm.data.ops.validate import Validate
from mlops_llm.data.repair import CLAIMS, DONE, Repair, mend
from mlops_llm.data.rows import Record
from mlops_llm.data.validate import Checks, check
from mlops_llm.errors import UserError
from mlops_llm.record import MemoryRun, Result

GOOD = {"prompt": "你好", "response": "您好"}
ASK, SAY = {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}


def repaired(*rows: dict[str, Any] | None, kind: Kind = Kind.sft) -> tuple[list[dict[str, Any]], Repair]:
    repair = Repair(kind)
    return list(repair.mended(Record(line, row) for line, row in enumerate(rows, 1))), repair


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("control", {"prompt": "a\x00b\ufeff", "response": "x\x07"}, {"prompt": "ab", "response": "x"}),
        ("control", {"\ufeffprompt": "a", "response": "x\x0b"}, {"prompt": "a", "response": "x"}),
        ("surrogate", {"prompt": "a\ud800", "response": "x"}, {"prompt": "a", "response": "x"}),
        ("leftover", {"prompt": "<|im_start|>user\na<|im_end|>", "response": "x</s>"}, {"prompt": "a", "response": "x"}),
        ("leftover", {"prompt": "<s>[INST] a [/INST]", "response": "x"}, {"prompt": "a", "response": "x"}),
        ("leftover", {"prompt": "<|im_<|im_end|>end|>a", "response": "x"}, {"prompt": "a", "response": "x"}),
        ("untrimmed", {"prompt": " a ", "response": "\nx\u3000"}, {"prompt": "a", "response": "x"}),
        ("roles", {"messages": [{**ASK, "role": "Human"}, {**SAY, "role": "bot"}]}, {"messages": [ASK, SAY]}),
        (
            "roles",
            {"conversations": [{"from": "User", "value": "a"}, {"from": "ChatGPT", "value": "x"}]},
            {"conversations": [{"from": "user", "value": "a"}, {"from": "gpt", "value": "x"}]},
        ),
    ],
)
def test_each_rule_mends_what_it_is_for(rule, before, after):
    rows, repair = repaired(before)
    assert rows == [after]
    assert repair.done[rule] >= 1
    assert rule in DONE
    assert not repair.left.errors


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"prompt": "def f(x):\n    return x\n", "response": "    y = 1\n    z = 2\n"},
        {"prompt": "a", "response": "b", "note": "  as it was  ", "n": 3, "more": {"deep": [None, 1.5]}},
        {"messages": [{"role": "system", "content": ""}, ASK, SAY], "tools": [{"name": "f"}]},
        {"prompt": "👨‍👩‍👧 family, a\tb\r\nc", "response": "5 < 6 [ok] # no"},
    ],
)
def test_what_is_sound_stays_as_it_is_code_and_other_fields_too(row):
    before = copy.deepcopy(row)
    rows, repair = repaired(row)
    assert rows == [before]
    assert not repair.done
    assert row == before


def test_unreadable_empty_and_repeated_rows_are_dropped_and_counted():
    rows, repair = repaired(
        GOOD, None, {"prompt": " ", "response": "x"}, {"prompt": "a", "response": "[INST]"}, {**GOOD, "prompt": "你好 "}
    )
    assert rows == [GOOD]
    assert repair.rows == 1
    assert {rule: repair.done[rule] for rule in ("unreadable", "blank", "duplicate")} == {
        "unreadable": 1,
        "blank": 2,
        "duplicate": 1,
    }


def test_what_only_a_person_can_mend_stays_and_is_said():
    rows, repair = repaired({"prompt": "x", "chosen": "a", "rejected": "a "}, {"prompt": "x"}, kind=Kind.dpo)
    assert [row["prompt"] for row in rows] == ["x", "x"]
    assert repair.left.counts == {"same_answers": 1, "structure": 1}
    assert [one.line for one in repair.left.all()] == [2, 1]


PIECE = st.sampled_from(
    [
        "a",
        "你",
        " ",
        "\n",
        "\t",
        "\x00",
        "\ufeff",
        "\ud800",
        "<|im_start|>",
        "user\n",
        "<|im_",
        "end|>",
        "<|im_end|>",
        "<s>",
        "</s>",
        "[INST]",
        "[/",
        "INST]",
        "### Response:",
        "\n### 回答：",
        "\u3000",
        "\x85",
        "#",
        "  x",
        "�",
    ]
)
TEXT = st.lists(PIECE, max_size=8).map("".join)
ROLE = st.sampled_from(["user", "assistant", "Human", "GPT", "bot", "system", "nobody"])
TURNS = st.lists(st.fixed_dictionaries({"role": ROLE, "content": TEXT}), max_size=3)
ROW = st.one_of(
    st.fixed_dictionaries({"prompt": TEXT, "response": TEXT}, optional={"system": TEXT, "note": TEXT}),
    st.fixed_dictionaries({"messages": TURNS}),
    st.fixed_dictionaries({"prompt": TEXT, "chosen": TEXT, "rejected": TEXT}),
    st.none(),
)


@given(st.lists(ROW, max_size=5), st.sampled_from([Kind.sft, Kind.dpo]))
def test_mended_rows_give_no_finding_that_mending_claims_to_mend(rows, kind):
    mended, _ = repaired(*rows, kind=kind)
    report = check([Record(line, row) for line, row in enumerate(mended, 1)], kind, Checks())
    assert not {rule: times for rule, times in report.findings.counts.items() if rule in CLAIMS}


@given(st.lists(ROW, max_size=5), st.sampled_from([Kind.sft, Kind.dpo]))
def test_mending_mended_rows_changes_nothing(rows, kind):
    mended, first = repaired(*rows, kind=kind)
    again, second = repaired(*copy.deepcopy(mended), kind=kind)
    assert again == mended
    assert not second.done
    assert second.left.counts == first.left.counts


@given(ROW.filter(lambda row: row is not None))
def test_mending_leaves_the_row_it_was_given_alone(row):
    before = copy.deepcopy(row)
    mend(row, Counter())
    assert row == before


def command(path, **settings) -> Result:
    operation = Validate(structure_only=True, **settings)
    return operation.prepare(Data(op=operation, dataset=str(path)))(MemoryRun())


def test_the_command_writes_a_new_file_and_says_what_is_left(here, jsonl):
    path = jsonl([GOOD, GOOD, {"prompt": "x"}, {"prompt": " a\x00", "response": "b"}])
    before = path.read_bytes()
    result = command(path, fix=True)
    fixed = here / "datasets" / "rows_fixed.jsonl"
    written = [json.loads(line) for line in fixed.read_text("utf-8").splitlines()]
    assert written == [
        GOOD,
        {"prompt": "x"},
        {"prompt": "a", "response": "b"},
    ]
    assert result.failed  # a row without answer is left
    assert result.values["repaired"] == {"duplicate": 1, "control": 1, "untrimmed": 1}
    assert path.read_bytes() == before
    assert [each.name for each in fixed.parent.iterdir()] == ["rows_fixed.jsonl"]


def test_a_file_of_that_name_is_never_written_over(here, jsonl):
    path = jsonl([GOOD])
    (here / "datasets").mkdir()
    jsonl([{"prompt": "mine", "response": "mine"}], "datasets/rows_fixed.jsonl")
    with pytest.raises(UserError, match="is there already"):
        command(path, fix=True)


def test_a_write_that_is_interrupted_leaves_nothing(here, jsonl, monkeypatch):
    path = jsonl([GOOD])

    def interrupted(self, records):
        yield GOOD
        raise KeyboardInterrupt

    monkeypatch.setattr(Repair, "mended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(path, fix=True)
    assert list((here / "datasets").iterdir()) == []


def test_the_exit_code_says_whether_there_are_errors(jsonl):
    assert not command(jsonl([GOOD])).failed
    assert command(jsonl([GOOD, {"prompt": " ", "response": "x"}])).failed


def test_the_summary_reads_as_in_the_guide(jsonl):
    shown = command(jsonl([GOOD, {**GOOD, "prompt": "你好吗"}, {"prompt": "", "response": "x"}])).shown
    assert shown[:5] == [
        "[green]✓[/green] format: jsonl, utf-8",
        "[green]✓[/green] rows: 3",
        "[green]✓[/green] fields: prompt, response",
        "[green]✓[/green] mean length: prompt 2 characters, response 2",
        "[red]✗[/red] 1 row has an empty or blank text [dim](line 3)[/dim]",
    ]
