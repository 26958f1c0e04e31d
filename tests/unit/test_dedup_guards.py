from __future__ import annotations

import pytest

from mlops_llm.data.dedup.guards import differences, reordered, traits, words
from mlops_llm.data.texts import CALLS, END, TOOLS, UNLEARNED


def apart(one: str, other: str, *solutions: str | None) -> str:
    first, second = solutions or (None, None)
    found = differences(traits(one, first), traits(other, second))
    return found or ("word order" if reordered(one, other) else "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("23+45等于多少", "23+46等于多少"),
        ("23+45等于多少", "23-45等于多少"),
        ("买了3台冰箱", "买了2台冰箱"),
        ("买了两台冰箱", "买了三台冰箱"),
        ("第一名是谁", "第二名是谁"),
        ("十一个人", "十个人"),
        ("She has three apples", "She has four apples"),
        ("half of the cake", "the cake"),
        ("twice as many dolls", "as many dolls"),
        ("costs 3.5 dollars", "costs 35 dollars"),
        ("x = -5", "x = 5"),
        ("a discount of 5%", "a discount of 5"),
        ("at 10:30", "at 10:45"),
    ],
)
def test_other_numbers_are_told(one, other):
    assert apart(one, other) == "numbers"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("这种蘑菇可以吃", "这种蘑菇不可以吃"),
        ("还有货", "还没有货"),
        ("请勿转发", "请转发"),
        ("It is safe to drink", "It is not safe to drink"),
        ("You can stop", "You can't stop"),
        ("tea with milk", "tea without milk"),
        ("I always agree", "I never always agree"),
    ],
)
def test_a_negation_more_is_told(one, other):
    assert apart(one, other) == "negations"


@pytest.mark.parametrize(
    ("one", "other"), [("猫追狗", "狗追猫"), ("The dog bit the man", "the man bit the dog"), ("从北京到上海", "从上海到北京")]
)
def test_swapped_roles_are_told(one, other):
    assert apart(one, other) == "word order"


@pytest.mark.parametrize(
    ("one", "other"),
    [("按升序排列", "按降序排列"), ("列出优点", "列出缺点"), ("Sort in ascending order", "Sort in descending order")],
)
def test_common_opposites_are_told(one, other):
    assert apart(one, other) == "opposites"


def test_latin_words_are_told_within_chinese_only():
    assert apart("用Python写一个函数", "用Java写一个函数") == "Latin words"
    assert apart("用C写一个函数", "用C++写一个函数") == "Latin words"
    assert apart("write a function in Python", "write some function in Python") == ""


def test_emoji_and_solutions_are_told():
    assert apart("太好了😀", "太好了🎉") == "emoji"
    assert apart("1+1=?", "1+1=?", "2", "3") == "solution"
    assert apart("1+1=?", "1+1=?", "2", None) == "solution"
    assert apart("1+1=?", "1+1=?", " 2", "2 ") == ""


def test_several_differences_are_all_named():
    assert apart("买3台", "不买2台") == "numbers, negations"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("写一个函数", "写个函数"),
        ("你好，能分期吗", "您好，能分期吗"),
        ("这个非常好", "这个很好"),
        ("特别推荐", "推荐"),
        ("costs 1,000 dollars", "costs 1000 dollars"),
        ("She has three apples", "She has 3 apples"),
        ("Write a poem about spring", "Write a short poem about spring"),
        ("HELLO world", "hello world"),
    ],
)
def test_other_spellings_are_not_told(one, other):
    assert apart(one, other) == ""


def test_words_are_characters_in_chinese():
    assert words("Hello 世界, C3") == ["hello", "世", "界", "c3"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a poem about the town of Paris in spring", "a poem about the town of London in spring"),
        ("What is the capital of France?", "What is the capital of Spain?"),
        ('write it in "Python" please', 'write it in "Ruby" please'),
        ("it ran on NASA hardware", "it ran on ESA hardware"),
    ],
)
def test_names_within_english_sentences_are_told(one, other):
    assert apart(one, other) == "names"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris is a lovely town", "London is a lovely town"),
        ("Yes. Take the bus", "Yes. Use the bus"),
        ("the town of paris", "the town of london"),
        ("I think so", "so I think so"),
        ("Paris and Paris? In Paris", "Paris and Paris? in Paris"),
    ],
)
def test_a_capital_letter_at_the_beginning_or_none_tells_no_name(one, other):
    assert apart(one, other) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("你会来参加会议。", "你会来参加会议？"),
        ("You are coming.", "You are coming?"),
        ("他走了", "他走了吗"),
        ("好\n他走了", "好\n他走了?"),
    ],
)
def test_a_question_and_a_statement_are_told(one, other):
    assert apart(one, other) == "questions"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("几点开门", "几点开门？"),
        ("How do I sort a list", "How do I sort a list?"),
        ("能不能分期", "能不能分期？"),
        ("好的。", "好的！"),
    ],
)
def test_a_question_that_words_tell_needs_no_mark(one, other):
    assert apart(one, other) == ""


def test_tools_calls_and_weights_are_told_by_their_marks():
    assert apart(f"{TOOLS}[a]{END} hi", f"{TOOLS}[b]{END} hi") == "tools"
    assert apart(f"hi {CALLS}[1]{END}", f"hi {CALLS}[2]{END}") == "calls of tools"
    assert apart(f"hi {UNLEARNED}0{END}yes", "hi yes") == "weights"
    assert apart(f"hi {UNLEARNED}0{END}yes", f"hi {UNLEARNED}1{END}yes") == "weights"
