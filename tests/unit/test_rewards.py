"""Rewards that need nothing but the answer and its row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.component import build, load
from mlops_llm.data.grading import Counts
from mlops_llm.errors import UserError
from mlops_llm.train.reward import Answers
from mlops_llm.train.rewards import format as shape
from mlops_llm.train.rewards.accuracy import Accuracy
from mlops_llm.train.rewards.format import Format
from mlops_llm.train.rewards.http import Http
from mlops_llm.train.rewards.keyword import Keyword
from mlops_llm.train.rewards.length import Length, trapezoid
from mlops_llm.train.rewards.model import RewardModel

ASKED = [{"role": "user", "content": "?"}]
REWARDS = {"accuracy": Accuracy, "format": Format, "http": Http, "keyword": Keyword, "length": Length, "model": RewardModel}


def score(reward, *completions, row=None, rows=None):
    return reward.score(Answers([ASKED] * len(completions), completions, rows or [row or {}] * len(completions)))


def refused(make, setting):
    with pytest.raises(UserError) as caught:
        make()
    assert caught.value.where == setting
    assert caught.value.what and caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", REWARDS)
def test_each_is_found_by_name_and_has_a_weight(name):
    load("mlops_llm.train.rewards")
    assert type(build("reward", name)) is REWARDS[name]
    assert build("reward", name).weight == 1
    assert build("reward", name, {"weight": -0.5}).weight == -0.5
    refused(lambda: REWARDS[name](weight=float("nan")), f"reward.{name}.weight")


@pytest.mark.parametrize("reward", [Accuracy(), Format(), Keyword(words=["a"]), Length()], ids=lambda each: type(each).__name__)
def test_no_answers_have_no_rewards(reward):
    assert score(reward) == []
    assert reward.check([]) == []


RIGHT = [
    ("8", r"3 + 5 = \boxed{8}"),
    ("8", "答案是 8 。"),
    ("8", "答案是八个"),
    ("8", "so\n#### 8"),
    ("8", "The answer is 8."),
    ("8", "The answer is **8** dollars"),
    ("3/4", "答案是四分之三"),
    ("0.75", r"\boxed{\frac{3}{4}}"),
    ("50%", "#### 0.5"),
    ("1,299", "答案：1299元"),
    ("三百二十五", "#### 325"),
    (325, "#### 325"),
    ("不够", "答案是不够"),
    ("x+1", r"\boxed{x + 1}"),
    ("#### 72", r"\boxed{72}"),
]
LENIENT = [
    ("8", "3 + 5 = 8"),
    ("8", "她一共卖了 8 个。"),
    ("8", "答案是一共 8 个苹果"),
    ("8", r"\boxed{x = 8}"),
    ("1.5", "on 1 1/2 miles"),
]
WRONG = [
    ("8", r"\boxed{9}"),
    ("8", "答案是 9，不是 8"),
    ("8", r"\boxed{8} 不对，应该是 \boxed{9}"),
    ("8", r"8 8 8 \boxed{8"),
    ("8", "8 apples, then 9"),
    ("8", ""),
    ("8", "\\boxed{} 8"),
    ("5", "5%"),
    ("3", r"\boxed{10^3}"),
    ("1", r"\boxed{2x + 1}"),
    ("不够", "够"),
]


@pytest.mark.parametrize(("solution", "completion"), RIGHT)
def test_right_answers(solution, completion):
    for counts in (Counts.any, Counts.marked):
        assert score(Accuracy(counts=counts), completion, row={"solution": solution}) == [1.0]


@pytest.mark.parametrize(("solution", "completion"), LENIENT)
def test_answers_that_are_right_by_lenience(solution, completion):
    assert score(Accuracy(), completion, row={"solution": solution}) == [1.0]
    assert score(Accuracy(counts=Counts.marked), completion, row={"solution": solution}) == [0.0]


@pytest.mark.parametrize(("solution", "completion"), WRONG)
def test_wrong_answers(solution, completion):
    for counts in (Counts.any, Counts.marked):
        assert score(Accuracy(counts=counts), completion, row={"solution": solution}) == [0.0]


def test_a_text_alone_is_an_answer_only_by_lenience():
    assert score(Accuracy(), "不够。", row={"solution": "不够"}) == [1.0]
    assert score(Accuracy(counts=Counts.marked), "不够。", row={"solution": "不够"}) == [0.0]


def test_rows_without_a_solution_are_told_and_left_out():
    rows = [{"solution": "8"}, {}, {"solution": ""}, {"solution": [8]}, {"solution": True}, {"solution": r"\boxed{8"}]
    fine, *others = Accuracy().check(rows)
    assert fine is None
    for said, wanted in zip(others, ["no 'solution'", "nothing to compare", "list", "bool", "do not close"], strict=True):
        assert wanted in said
    assert score(Accuracy(), *["8"] * len(rows), rows=rows) == [1.0, None, None, None, None, None]
    assert "no row has a solution" in refused(lambda: Accuracy().check(rows[1:]), "reward.accuracy")


@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_a_number_is_right_just_where_it_is_equal(wanted, said):
    for text in (rf"\boxed{{{said}}}", f"so\n#### {said}", f"答案是 {said}。", f"it makes {said}"):
        assert score(Accuracy(), text, row={"solution": str(wanted)}) == [float(wanted == said)]


def test_a_box_is_the_default_format():
    good = [r"so \boxed{8}", r"\boxed{\frac{1}{2}}", r"\boxed{7} \boxed{8}"]
    bad = ["8", r"\boxed{8", r"\boxed{}", r"\boxed{ }", r"\boxed{\frac{1}{2}", r"\boxed{8} \boxed{9", ""]
    assert score(Format(), *good, *bad) == [1.0] * len(good) + [0.0] * len(bad)
    assert Format().check([{}, {}]) == [None, None]


def test_a_pattern_matches_somewhere_and_across_lines():
    reward = Format(pattern=r"<think>.+</think>\s*\S")
    assert score(reward, "a <think>b\nc</think>\nd", "<think></think> d", "<think>b</think>") == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("pattern", ["(", "[a", "*a", "a{2,1}", "(?P<n>a)(?P<n", ""])
def test_a_bad_pattern_is_one_line(pattern):
    refused(lambda: Format(pattern=pattern), "reward.format.pattern")


def test_a_pattern_without_end_is_left_in_time(monkeypatch):
    monkeypatch.setattr(shape, "PATIENCE", 0.05)
    assert score(Format(pattern=r"^(a|aa)+\1$"), "a" * 60 + "b", "aa") == [None, 1.0]


def test_a_pattern_sees_the_beginning_of_an_endless_answer():
    assert score(Format(pattern="b"), "a" * shape.LONGEST + "b", "ab") == [0.0, 1.0]


def test_lengths_between_are_full_and_fall_outside():
    reward = Length(least=10, most=20, margin=4)
    texts = ["字" * count for count in (6, 7, 8, 10, 15, 20, 21, 22, 24, 30)]
    assert score(reward, *texts) == [0, 0.25, 0.5, 1, 1, 1, 0.75, 0.5, 0, 0]
    assert reward.check([{}]) == [None]


def test_blanks_around_and_empty_answers_win_nothing():
    assert score(Length(least=5, most=9, margin=100), "", "   \n" * 9, " 12345 ") == [0, 0, 1]
    assert score(Length(least=0), "") == [1]
    assert score(Length(least=2, most=3, margin=0), "1", "12", "123", "1234") == [0, 1, 1, 0]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_the_reward_of_a_length_is_within_bounds_and_never_jumps_up_outside(least, wide, margin, length):
    most = max(1, least + wide)
    here, further = (trapezoid(each, least, most, margin) for each in (length, length + 1))
    assert 0 <= here <= 1
    assert (here == 1) == (least <= length <= most)
    assert here >= further if length >= most else True
    assert here <= further if length < least else True


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"least": -1}, "least"),
        ({"least": 5, "most": 4}, "most"),
        ({"least": 0, "most": 0}, "most"),
        ({"margin": -1}, "margin"),
    ],
)
def test_lengths_that_are_none(settings, field):
    refused(lambda: Length(**settings), f"reward.length.{field}")


def test_the_share_of_words_less_penalties():
    reward = Keyword(words=["保修", "Refund", "ABC"], unwanted=["便宜", "保证"], penalty=0.5)
    assert score(reward, "保修，refund，ａｂｃ", "保修", "", "保修 REFUND 便宜", "保修便宜保证") == pytest.approx(
        [1, 1 / 3, 0, 1 / 6, 0]
    )


def test_a_rows_keywords_go_before_words():
    reward = Keyword(words=["甲"])
    rows = [{"keywords": ["乙", "丙"]}, {"keywords": "乙，丙、 "}, {"keywords": []}, {"keywords": None}, {}]
    assert score(reward, *["乙甲"] * 5, rows=rows) == [0.5, 0.5, 1, 1, 1]
    assert reward.check(rows) == [None] * 5


def test_only_unwanted_words():
    assert score(Keyword(unwanted=["坏", "差"], penalty=0.25), "好", "坏", "又坏又差") == [1, 0.75, 0.5]


def test_rows_without_words_are_told_and_left_out():
    rows = [{"keywords": ["甲"]}, {}, {"keywords": 7}, {"keywords": [1]}]
    fine, none, number, numbers = Keyword().check(rows)
    assert fine is None
    assert "no 'keywords'" in none and "int" in number and "list" in numbers
    assert score(Keyword(), *["甲"] * 4, rows=rows) == [1, None, None, None]
    assert "no word" in refused(lambda: Keyword().check(rows[1:]), "reward.keyword.words")
    refused(lambda: Keyword().check([]), "reward.keyword.words")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"words": ["a", " "]}, "words"),
        ({"words": ["a"], "unwanted": [""]}, "unwanted"),
        ({"words": ["Ａ"], "unwanted": ["a"]}, "unwanted"),
        ({"penalty": -1}, "penalty"),
        ({"penalty": float("inf")}, "penalty"),
    ],
)
def test_words_that_are_none(settings, field):
    refused(lambda: Keyword(**settings), f"reward.keyword.{field}")


few = st.lists(st.sampled_from(["ab", "bc", "Cd", "甲", "ＡＢ"]), max_size=4)


@given(st.text(st.sampled_from("abcdABCD甲乙"), max_size=12), few, few)
def test_case_and_width_never_change_a_share(text, words, unwanted):
    unwanted = [each for each in unwanted if each.casefold() not in {"ab", "bc", "cd", "甲", "ａｂ"}] or ["乙"]
    reward = Keyword(words=words, unwanted=unwanted)
    (one,) = score(reward, text)
    assert score(reward, text.upper()) == [one]
    assert 0 <= one <= 1


def test_boxes_alone_count_where_wanted():
    boxed = Accuracy(counts=Counts.boxed)
    wanted = {"solution": "8"}
    assert score(boxed, r"3 + 5 = \boxed{8}", row=wanted) == [1.0]
    assert score(boxed, r"\boxed{7} \boxed{8.0} 答案是 7", row=wanted) == [1.0]
    for other in ("答案是 8 。", "#### 8", "8", r"\boxed{7} 8", r"\boxed{8"):
        assert score(boxed, other, row=wanted) == [0.0]
