from __future__ import annotations

import pytest

from mlops_llm.data.findings import RULES, Findings, Severity
from mlops_llm.data.solutions import parse, problem
from mlops_llm.data.suspects import clean, is_card, is_identity, personal, suspects
from mlops_llm.errors import printable


def test_all_findings_are_counted_and_the_first_of_each_rule_kept():
    findings = Findings(keep=2)
    for line in range(1, 6):
        findings.add("blank", line, "prompt", "is empty")
        findings.add("control", line, "prompt", "NUL")
    assert findings.counts == {"blank": 5, "control": 5}
    assert [one.line for one in findings.kept["blank"]] == [1, 2]
    assert (findings.errors, findings.warnings) == (5, 5)


def test_a_row_with_two_flaws_of_a_rule_counts_once_but_both_are_kept():
    findings = Findings()
    findings.add("blank", 3, "prompt", "is empty")
    findings.add("blank", 3, "response", "is empty")
    assert findings.counts["blank"] == 1
    assert [one.field for one in findings.all()] == ["prompt", "response"]


def test_rows_on_one_line_are_told_apart_by_their_number():
    findings = Findings()
    findings.add("blank", 1, "prompt", "is empty", row=1)
    findings.add("blank", 1, "prompt", "is empty", row=2)
    assert findings.counts["blank"] == 2


def test_errors_come_first_and_every_finding_has_a_remedy():
    findings = Findings()
    for rule in reversed(RULES):
        findings.add(rule, 1, "", "x")
    found = findings.all()
    severities = [one.severity for one in found]
    assert severities == sorted(severities, key=lambda each: each is Severity.warning)
    assert all(one.remedy for one in found)
    assert set(findings.table()) == {"severity", "rule", "line", "field", "what", "remedy"}


def test_a_finding_repeats_at_most_200_characters_of_a_row():
    findings = Findings()
    findings.add("control", 1, "f" * 500, "w" * 500)
    (found,) = findings.all()
    assert len(found.what) <= 200
    assert len(found.field) <= 80


def test_what_a_terminal_would_obey_is_escaped():
    assert printable("a\x1b[31mb\ud800") == "a\\u001b[31mb\\ud800"
    assert printable("普通 text") == "普通 text"


CARD, IDENTITY = "6222 0212 3456 7894", "11010519491231002X"


def rules(text: str) -> set[str]:
    found = {one.rule for one in suspects(text)}
    assert not (found and clean(text)), "the quick look must not pass over what the close look finds"
    return found


@pytest.mark.parametrize(
    ("rule", "text", "neighbour"),
    [
        ("control", "a\x07b", "a\tb\r\nc"),
        ("control", "nul\x00", "nul"),
        ("control", "\ufeffmark", "mark"),
        ("control", "a\u202eb", "a\u200db"),
        ("replacement", "a\ufffdb", "a?b"),
        ("surrogate", "a\ud83d", "a😀"),
        ("leftover", "<|im_start|>user\nhi", "<|im|> user"),
        ("leftover", "[INST] hi [/INST]", "[inst] hi"),
        ("leftover", "### Instruction:\nhi", "### Instructions for use"),
        ("leftover", "x\n### 回答：", "## 回答问题"),
        ("leftover", "bye</s>", "</s> closes a strike"),
        ("leftover", "<|start_header_id|>user<|end_header_id|>", "<|custom|>"),
        ("secret", "use sk-" + "abcdefgh1234567890", "a task-force of twenty people"),
        ("secret", "password: correct-horse", "the password is asked for"),
        ("personal", "write to mei.lin@mail.cn", "write to user@example.com"),
        ("personal", "电话13812345678", "订单12812345678"),
        ("personal", "电话 138-1234-5678", "编号 138123456789"),
        ("personal", f"身份证{IDENTITY}", "身份证110105194912310021"),
        ("personal", f"卡号 {CARD}", "卡号 6222 0212 3456 7895"),
    ],
)
def test_each_suspect_is_found_and_its_near_neighbour_is_not(rule, text, neighbour):
    assert rule in rules(text)
    assert rule not in rules(neighbour)


@pytest.mark.parametrize(
    "whole",
    ["13812345678", IDENTITY, CARD, "mei.lin@mail.cn", "sk-" + "abcdefgh1234567890"],
    ids=["mobile", "id", "card", "mail", "key"],
)
def test_what_is_somebodys_is_never_printed_whole(whole):
    found = list(suspects(f"它是 {whole} 请保密"))
    assert found
    for one in found:
        assert whole not in one.what
        assert whole.replace(" ", "") not in one.what
        assert "***" in one.what


def test_an_identity_number_is_no_bank_card():
    assert [each.partition(" (")[0] for each in personal(f"号码{IDENTITY}")] == ["an identity number"]


def test_checksums():
    assert is_identity(IDENTITY)
    assert is_identity(IDENTITY.lower())
    assert not is_identity("110105194912310020")
    assert is_card("4111111111111111".replace("11111111", "11112222", 1)) is False
    assert is_card("79927398713")
    assert not is_card("79927398710")
    assert not is_card("0000000000000000")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", "12"),
        ("1,234.5", "2469/2"),
        ("¥1,299", "1299"),
        ("$18", "18"),
        ("50%", "1/2"),
        ("50％", "1/2"),
        ("3/4", "3/4"),
        (r"\frac{3}{4}", "3/4"),
        (r"\dfrac12", "1/2"),
        (r"-\frac{1}{2}", "-1/2"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("１２", "12"),
        ("1 1/2", "3/2"),
        ("三百二十五", "325"),
        ("一千零五十", "1050"),
        ("两万三", "23000"),
        ("三百零二", "302"),
        ("十二", "12"),
        ("二〇二四", "2024"),
        ("一亿三千万", "130000000"),
        ("三点五", "7/2"),
        ("百分之五十", "1/2"),
        ("三分之一", "1/3"),
        ("负五", "-5"),
        ("1.5万", "15000"),
        ("297元", "297"),
        ("5千克", "5"),
        ("100 km", "100"),
        ("1e3", "1000"),
        (r"$\boxed{7}$", "7"),
        (r"so \boxed{\frac{1}{2}}", "1/2"),
        ("答案是：5。", "5"),
        ("答案是 8，因为", "8"),
        ("a\n#### 1,200", "1200"),
        ("The answer is 5.", "5"),
        ("不够", None),
        ("星期一", None),
        ("一样", None),
        ("十百", None),
        ("万", None),
        ("2x", None),
        ("3月5日", None),
        ("1/0", None),
    ],
)
def test_solutions_and_their_values(text, value):
    found = parse(text)
    assert found is not None
    assert not problem(text)
    assert (None if found.number is None else str(found.number)) == value


def test_solutions_that_say_the_same_are_equal():
    for one, other in [
        ("0.5", "50%"),
        ("1299元", "¥1,299"),
        ("十二", "12"),
        ("Yes.", "yes"),
        ("不 够", "不够"),
        (r"\boxed{3}", "#### 3"),
    ]:
        first, second = parse(one), parse(other)
        assert first and second and first.equals(second), (one, other)
    for one, other in [("3", "4"), ("够", "不够"), ("5%", "5"), ("2x", "2")]:
        first, second = parse(one), parse(other)
        assert first and second and not first.equals(second), (one, other)


@pytest.mark.parametrize(
    ("text", "said", "neighbour"),
    [
        ("", "nothing to compare", "0"),
        ("。。", "nothing to compare", "。。3"),
        (r"\boxed{}", "nothing to compare", r"\boxed{0}"),
        ("so\n####", "nothing to compare", "so\n#### 1"),
        (r"\boxed{3", "do not close", r"\boxed{3}"),
        (r"\boxed{3} and \boxed{4}", "contradicts", r"\boxed{3} and \boxed{3.0}"),
        ("答案是3\n#### 4", "contradicts", "答案是3元\n#### 3"),
        ("#### yes\n#### no", "contradicts", "#### yes\n#### Yes."),
    ],
)
def test_solutions_that_a_grader_cannot_use_are_named(text, said, neighbour):
    assert said in problem(text)
    assert not problem(neighbour)
