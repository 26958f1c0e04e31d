"""Answers that a model writes: what is marked, and the number among words."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.grading import Counts, grade
from mlops_llm.data.solutions import boxed, last_number, marked, parse, spoken, unclosed

PHRASES = {
    "一共 8 个": 8,
    "x = 8": 8,
    "(8)": 8,
    "（8）": 8,
    "8 because 3 + 5 = 8": 8,
    "3 + 5 = 8": 8,
    "8 since 3 apples are left": 8,
    "8 - 3": None,
    "2x + 1": None,
    "10^3": None,
    "x = 2y": None,
    "between 1 and 2": None,
    "不够": None,
}
TEXTS = {
    "48/2 = 24. 24 + 48 = 72 altogether.": 72,
    "10 - 3": 3,
    "10-3": 3,
    "she has -3": -3,
    "她欠了-3": -3,
    "on 1 1/2 miles": Fraction(3, 2),
    "**$18.50**!": Fraction(37, 2),
    "1,234,567 dollars": 1234567,
    "a half, so 50%": Fraction(1, 2),
    "it takes 5h": 5,
    "共1.5万元": 15000,
    "一共是八个。": 8,
    "还剩三个": 3,
    "我们在一起": None,
    "唯一": None,
    "第一": None,
    "x2": None,
    "": None,
}


def value(found):
    return None if found is None else found.number


@pytest.mark.parametrize(("phrase", "number"), PHRASES.items())
def test_the_number_of_a_phrase(phrase, number):
    assert value(spoken(phrase)) == number


@pytest.mark.parametrize(("text", "number"), TEXTS.items())
def test_the_last_number_of_a_text(text, number):
    assert value(last_number(text)) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{\$1,299}", 1299),
        (r"\boxed{1{,}299}", 1299),
        (r"The answer is \(18\).", 18),
        (r"\[ \boxed{18} \]", 18),
        (r"\boxed{1\frac{1}{2}}", Fraction(3, 2)),
        (r"\boxed{8\text{ dollars}}", 8),
    ],
)
def test_latex_that_models_write(text, number):
    assert value(parse(text)) == number


def test_the_mark_that_counts():
    assert marked(r"答案是 3. \boxed{4} and \boxed{5}, the answer is 6") == "5"
    assert marked("答案是 3，不，答案是 4") == "4"
    assert marked("3") is None
    assert marked("####") == ""


def test_boxes_and_their_braces():
    assert boxed(r"\boxed{\frac{1}{2}} \boxed{}") == [r"\frac{1}{2}", ""]
    assert not unclosed(r"\boxed{\frac{1}{2}}")
    assert not unclosed(r"\boxed{\boxed{1}}")
    assert unclosed(r"\boxed{1} and \boxed{2")


@given(st.integers(-(10**9), 10**9), st.integers(0, 999))
def test_a_number_is_found_behind_any_words(whole, cents):
    text = f"{whole:,}.{cents:03}"
    wanted = Fraction(f"{whole}.{cents:03}")
    for said in (f"It is {text}", f"that makes {text} dollars.", f"3 + 4 = {text}"):
        assert value(last_number(said)) == wanted
        assert value(spoken(said)) == wanted


@given(st.text(st.sampled_from("0123456789,./- $%=一十百万点分之元是\\{}boxed答案#\n"), max_size=60))
def test_no_text_breaks_it(text):
    for read in (parse, marked, spoken, last_number, unclosed):
        read(text)


SPELLED = {
    r"\boxed{.5}": "0.5",
    ".5": "0.5",
    "答案是.5": "0.5",
    "$.50": "0.5",
    "百分之5": "0.05",
    "百分之五": "0.05",
    "百分之12.5": "0.125",
    "10 percent": "0.1",
    "2又1/3": "7/3",
    "二又三分之一": "7/3",
    "1万2": "12000",
    "1万2千5百": "12500",
    "答案是1万2千": "12000",
    "1万2000": "12000",
    "3亿2千万": "320000000",
    "1.5万": "15000",
    "三个小时": "3",
    r"\cfrac{3}{4}": "3/4",
    r"\frac{1}{ 2 }": "1/2",
    r"\frac{3.5}{2}": "7/4",
    r"\frac{1,000}{3}": "1000/3",
    r"\frac 1 2": "1/2",
    r"2\cfrac{1}{2}": "5/2",
    "½": "1/2",
    "1½": "3/2",
    "The answer is:\n\n8": "8",
    "答案是：\n8": "8",
    "#### \n8": "8",
    r"The answer is: \(8\)": "8",
}


@pytest.mark.parametrize(("said", "wanted"), SPELLED.items())
def test_a_number_in_another_spelling_is_right_and_another_number_is_not(said, wanted):
    right, value = parse(wanted), Fraction(wanted)
    assert right is not None and right.number == value
    assert grade(said, right)
    assert not grade(said, parse(str(value + 1))) and not grade(said, parse(str(-value)))


NEGATIVE = [
    "-{}",
    "- {}",
    "−{}",
    r"\boxed{{-{}}}",
    r"\boxed{{- {}}}",
    r"\boxed{{负{}}}",
    "#### -{}",
    "负{}",
    "答案是-{}",
    "答案：- {}",
    "答案是负{}",
    "minus {}",
    "The answer is minus {}",
    "The answer is negative {}.",
    "so 0 = x + {0}, x = - {0}",
]


@given(st.integers(1, 99999), st.sampled_from(NEGATIVE))
def test_a_sign_is_never_lost(number, form):
    said = form.format(number)
    assert grade(said, parse(str(-number))), said
    assert not grade(said, parse(str(number))), said


def test_what_is_subtracted_has_no_sign():
    for said in ("10 - 3", "10 minus 3", "x - 3", "10-3"):
        assert value(last_number(said)) == 3


def test_an_option_is_the_same_with_and_without_its_brackets():
    assert grade(r"\boxed{(A)}", parse("A"), Counts.boxed) and not grade(r"\boxed{(A)}", parse("B"), Counts.boxed)
