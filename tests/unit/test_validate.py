from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data import formats
from mlops_llm.data.kinds import Kind
from mlops_llm.data.ops.validate import summary
from mlops_llm.data.read import Read
from mlops_llm.data.rows import Record
from mlops_llm.data.skim import structure
from mlops_llm.data.validate import Checks, Report, check
from mlops_llm.errors import UserError

GOOD: dict[Kind, dict[str, Any]] = {
    Kind.sft: {"prompt": "你好", "response": "您好"},
    Kind.dpo: {"prompt": "你好", "chosen": "您好", "rejected": "嗯"},
    Kind.kto: {"prompt": "你好", "response": "您好", "label": True},
    Kind.ppo: {"prompt": "你好"},
    Kind.grpo: {"prompt": "1+1", "solution": "2"},
    Kind.eval: {"prompt": "你好", "reference": "您好"},
}
ASK, SAY = {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}


def records(rows: Iterable[dict[str, Any] | None]) -> list[Record]:
    return [
        Record(line, row, "" if row is not None else "is not JSON", "" if row is not None else "mend it")
        for line, row in enumerate(rows, 1)
    ]


def checked(*rows: dict[str, Any] | None, kind: Kind | None = None, **how: Any) -> Report:
    return check(records(rows), kind, Checks(**how))


@pytest.mark.parametrize("kind", Kind)
def test_a_good_row_of_each_kind_is_sound_and_tells_its_kind(kind):
    report = checked(GOOD[kind])
    assert report.kind is kind
    assert not report.findings.counts
    assert (report.rows, report.read, report.sound) == (1, 1, 1)


SFT, DPO, GRPO, CHAT = GOOD[Kind.sft], GOOD[Kind.dpo], GOOD[Kind.grpo], {"messages": [ASK, SAY]}


@pytest.mark.parametrize(
    ("rule", "good", "bad", "neighbour"),
    [
        ("unreadable", SFT, None, {**SFT, "prompt": "x"}),
        ("structure", SFT, {"prompt": "x"}, {"prompt": "x", "response": "y"}),
        ("structure", SFT, {"prompt": "x", "response": 3}, {"prompt": "x", "response": "3"}),
        ("structure", SFT, {"prompt": "x", "response": None}, {"prompt": "x", "completion": "y"}),
        ("structure", GOOD[Kind.kto], {**GOOD[Kind.kto], "label": "maybe"}, {**GOOD[Kind.kto], "label": False}),
        ("mixed", DPO, SFT, {**DPO, "prompt": "x"}),
        ("convertible", GOOD[Kind.ppo], GRPO, {"prompt": "x"}),
        ("convertible", GOOD[Kind.eval], SFT, {"prompt": "x"}),
        ("blank", SFT, {"prompt": "x", "response": ""}, {"prompt": "x", "response": "0"}),
        ("blank", SFT, {"prompt": " \u3000\n", "response": "x"}, {"prompt": "。", "response": "x"}),
        (
            "blank",
            CHAT,
            {"messages": [{"role": "user", "content": " "}, SAY]},
            {"messages": [{"role": "system", "content": ""}, ASK, SAY]},
        ),
        ("roles", CHAT, {"messages": [ASK, ASK, SAY]}, {"messages": [ASK, SAY, ASK, SAY]}),
        (
            "roles",
            CHAT,
            {"messages": [ASK, SAY, {"role": "bot", "content": "x"}]},
            {"messages": [ASK, {**SAY, "content": "x"}]},
        ),
        ("roles", CHAT, {"messages": [SAY]}, {"messages": [{"role": "system", "content": "s"}, ASK, SAY]}),
        ("roles", CHAT, {"messages": [ASK]}, {"messages": [{**ASK, "content": "2"}, SAY]}),
        (
            "same_answers",
            DPO,
            {"prompt": "x", "chosen": "a", "rejected": " a"},
            {"prompt": "x", "chosen": "a", "rejected": "A"},
        ),
        ("solution", GRPO, {"prompt": "x", "solution": "\\boxed{}"}, {"prompt": "x", "solution": "够"}),
        ("surrogate", SFT, {"prompt": "x\ud800", "response": "y"}, {"prompt": "x😀", "response": "y"}),
        ("control", SFT, {"prompt": "x\x00", "response": "y"}, {"prompt": "x\ty", "response": "y"}),
        ("control", CHAT, {"messages": [ASK, {**SAY, "content": "\x1b[0m"}]}, {"messages": [ASK, {**SAY, "content": "[0m"}]}),
        ("replacement", SFT, {"prompt": "x�", "response": "y"}, {"prompt": "x?", "response": "y"}),
        ("untrimmed", SFT, {"prompt": "x", "response": "y\n"}, {"prompt": "x", "response": "y", "note": "free \n"}),
        ("untrimmed", SFT, {"prompt": " x", "response": "y"}, {"prompt": "def f():\n    return 1\n", "response": "y"}),
        ("leftover", SFT, {"prompt": "<|im_start|>user\nx", "response": "y"}, {"prompt": "<im_start>", "response": "y"}),
        ("duplicate", SFT, dict(reversed(SFT.items())), {**SFT, "response": "您 好"}),
        ("secret", SFT, {"prompt": "token=" + "abcdef123456", "response": "y"}, {"prompt": "a token of love", "response": "y"}),
        ("personal", SFT, {"prompt": "打13912345678", "response": "y"}, {"prompt": "打10086", "response": "y"}),
    ],
)
def test_each_finding_has_a_row_that_triggers_it_and_a_neighbour_that_does_not(rule, good, bad, neighbour):
    report = checked(good, bad, good | {"n": 1}, good | {"n": 2})
    assert report.findings.counts[rule] == 1, report.findings.all()
    assert report.findings.kept[rule][0].line == 2
    assert not checked(good, neighbour, good | {"n": 1}, good | {"n": 2}).findings.counts[rule]


def test_rows_over_the_limit_of_tokens_are_counted_as_the_model_sees_them():
    seen: list[list[dict[str, Any]]] = []

    def count(kind: Kind):
        assert kind is Kind.sft

        def counter(rows: list[dict[str, Any]]) -> list[int]:
            seen.append(rows)
            return [len(row["response"]) for row in rows]

        return counter

    rows = [{"instruction": "x", "output": "y" * length} for length in (9, 10, 11, 30)]
    report = check(records([*rows, {"instruction": "", "output": "z" * 99}]), None, Checks(max_tokens=10), count)
    assert report.findings.counts["too_long"] == 2
    assert [one.what for one in report.findings.kept["too_long"]] == ["11 tokens, 1 over 10", "30 tokens, 20 over 10"]
    assert report.longest == 30
    assert [row["prompt"] for row in seen[0]] == ["x"] * 4  # of the kind's own fields, without the unsound row


def test_the_kind_is_that_of_most_rows_and_a_wanted_kind_overrules_it():
    report = checked({"prompt": "x"}, SFT, {**SFT, "response": "2"})
    assert report.kind is Kind.sft
    assert report.findings.counts == {"structure": 1}
    gsm = {"question": "1+1?", "answer": "1+1=2\n#### 2"}
    assert checked(gsm).kind is Kind.sft
    as_asked = checked(gsm, kind=Kind.grpo)
    assert as_asked.kind is Kind.grpo
    assert not as_asked.findings.counts
    assert as_asked.means == {"prompt": 4, "solution": 1}


def test_rows_that_nothing_is_known_of_are_errors_with_the_way_out():
    report = checked({"a": "1"}, None, {"b": "2"})
    assert report.kind is None
    assert report.findings.counts == {"structure": 2, "unreadable": 1}
    assert "kind=" in report.findings.kept["structure"][0].remedy


def test_a_file_that_cannot_be_read_on_is_a_finding_and_what_came_before_counts():
    def broken():
        yield from records([SFT])
        raise UserError("is cut off", "x.jsonl.gz", "copy it again")

    report = check(broken(), None, Checks())
    assert report.findings.counts == {"unreadable": 1}
    assert (report.rows, report.kind) == (1, Kind.sft)


def test_repeated_rows_name_the_first_one():
    report = checked(SFT, {**SFT, "response": "x"}, SFT, SFT)
    assert report.findings.counts["duplicate"] == 2
    assert [(one.line, one.what) for one in report.findings.kept["duplicate"]] == [
        (3, "is the same as the row on line 1"),
        (4, "is the same as the row on line 1"),
    ]


def test_in_a_folder_repeated_rows_name_the_first_ones_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(SFT) + "\n", "utf-8")
    report = check(formats.records(tmp_path), None, Checks(), several=True)
    (found,) = report.findings.kept["duplicate"]
    assert (found.file, found.line, found.what) == ("b.jsonl", 1, "is the same as the row on line 1 of a.jsonl")


def test_no_finding_repeats_more_than_200_characters_of_a_row():
    long = "\x00" + "长" * 5000
    report = checked(
        SFT, {"prompt": long, "response": {long: long}}, {long: "x"}, {"messages": [{"role": long, "content": long}]}
    )
    assert report.findings.counts
    for one in report.findings.all():
        assert max(map(len, (one.what, one.field))) <= 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "prompt",
        "response",
        "chosen",
        "rejected",
        "messages",
        "conversations",
        "solution",
        "answer",
        "question",
        "choices",
        "choice0",
        "label",
        "canonical_solution",
        "instruction",
        "output",
        "system",
        "tools",
        "reference",
        "Question",
        "Best Answer",
        "role",
    ]
)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=4), st.sampled_from([None, *Kind]))
def test_no_row_of_any_form_stops_the_check(rows, kind):
    report = checked(*rows, kind=kind)
    assert report.rows == len(rows)
    assert report.sound + sum(report.findings.counts[rule] > 0 for rule in report.findings.counts) >= bool(rows)


LINE = st.one_of(
    st.builds(
        lambda prompt, response: json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False),
        st.text(max_size=4),
        st.text(max_size=4),
    ),
    st.builds(
        lambda prompt, response: json.dumps({"prompt": prompt, "response": response}),
        st.text(max_size=4),
        st.sampled_from(["a\\", '"', '\\"', "x"]),
    ),
    st.sampled_from(
        [
            '{"prompt": "a", "prompt": "b", "response": "c"}',
            '{"prompt": "a\\\\", "prompt": "b", "response": "c"}',
            "",
            "  ",
            "{",
            "[]",
            "3",
            '["prompt", "response"]',
            '{"response": "b", "prompt": "a"}',
            '{"prompt": "a", "response": 1}',
            '{"prompt": "a"}',
            '{"prompt": "a", "response": "b", "n": 1}',
            '{"prompt": "\\ud800", "response": "b"}',
            '{"prompt": "a", "response": NaN}',
        ]
    ),
)


@given(st.lists(LINE, max_size=12), st.sampled_from(["\n", "\r\n"]), st.sampled_from([1, 1000]))
def test_skimming_finds_what_the_careful_check_finds(tmp_path_factory, lines, end, size):
    from mlops_llm.data.formats import records as read

    path = tmp_path_factory.mktemp("skim") / "rows.jsonl"
    text = end.join([f'{{"prompt": "问{n}", "response": "{"答" * size}"}}' for n in range(3)] + lines)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    careful = check(read(path, Read()), None, Checks(contents=False))
    quick = structure(path, Read(), None, 20)
    assert quick.findings.all() == careful.findings.all()
    assert quick.findings.counts == careful.findings.counts
    assert (quick.rows, quick.read, quick.sound, quick.kind) == (careful.rows, careful.read, careful.sound, careful.kind)
    assert quick.means == careful.means
    assert quick.fields == careful.fields


@pytest.mark.parametrize(
    "rows",
    [
        [DPO, {**DPO, "rejected": "您好 "}, {**DPO, "chosen": "好\\"}],
        [GRPO, {**GRPO, "solution": "\\boxed{}"}, {**GRPO, "solution": "\\boxed{3}"}],
        [GOOD[Kind.ppo], {"prompt": " "}],
        [GOOD[Kind.kto], {**GOOD[Kind.kto], "label": "x"}],
    ],
)
def test_skimming_knows_each_kind(jsonl, rows):
    report = structure(jsonl([rows[0]] * 3 + rows), Read(), None, 20)
    assert report.findings.counts.total() == 1
    assert report.findings.all()[0].line == 5
    assert report.rows == 3 + len(rows)


def test_skimming_passes_over_a_byte_order_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    for rows in ([{"prompt": "问", "response": "答"}], [{"prompt": "问", "response": " "}, {"prompt": "问", "response": "答"}]):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(b"\xef\xbb\xbf" + lines.encode())
        report = structure(path, Read(), None, 20)
        assert report.rows == len(rows)
        assert [(one.rule, one.line) for one in report.findings.all()] == [("blank", 1)] * (len(rows) - 1)


@pytest.mark.parametrize(
    "text", ["密码: hunter2xyz99", "我的密码是hunter2xyz99", "use password=hunter2xyz99 and go", "my password is hunter2xyz99"]
)
def test_credentials_in_sentences_are_found_and_masked(text):
    report = check([Record(1, {"prompt": text, "response": "b"})], None, Checks())
    (found,) = [one for one in report.findings.all() if one.rule == "secret"]
    assert "hunter2" not in found.what


@pytest.mark.parametrize(
    "text", ["密码是必填项", "the password is required here", "token: a word of the alphabet", "忘记密码怎么办"]
)
def test_talk_about_credentials_is_none(text):
    report = check([Record(1, {"prompt": text, "response": "b"})], None, Checks())
    assert report.findings.counts["secret"] == 0


def test_rows_of_an_evaluation_are_counted_by_what_they_tell():
    rows = [
        {"prompt": "a", "reference": "b", "label": "c"},
        {"prompt": "a2", "references": ["b"]},
        {"prompt": "a3", "label": 0},
    ]
    report = checked(*rows, {"prompt": "a4", "reference": None, "answer": 8}, {"question": "a5", "answer": "b"}, kind=Kind.eval)
    assert report.told == {"reference": 4, "label": 2} and checked(GOOD[Kind.sft]).told == {}
    (line,) = [line for line in summary(Path("x.jsonl"), "utf-8", report, 512) if "references in" in line]
    assert "references in 4 of 5 rows, labels in 2 (bleu, exact_match and others need one" in line
