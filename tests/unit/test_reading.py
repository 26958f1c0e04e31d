"""What a judge's answer says, however it is wrapped; what it does not say is never guessed."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.eval.reading import UnreadableError, _unthought, choice, ratings, read
from tests.chat_server import BROKEN, GOOD, MENDED, RATINGS, SHAPES

LABELS = {"accuracy": ["准确性"], "relevance": ["相关性"], "fluency": ["流畅性"], "professionalism": ["专业性"]}
MEANING = ratings(LABELS)


def said(text: str):
    return read(text, MEANING)


@pytest.mark.parametrize("text", [GOOD, *SHAPES.values()], ids=["plain", *SHAPES])
def test_wrapped_answers_are_read_as_they_are(text):
    found = said(text)
    assert found.value == RATINGS and list(found.value) == list(RATINGS)
    assert (found.comment, found.repaired) == ("礼貌、准确", False)


@pytest.mark.parametrize("text", MENDED.values(), ids=MENDED)
def test_what_is_nearly_json_is_mended_and_marked(text):
    found = said(text)
    assert (found.value, found.repaired) == (RATINGS, True)


@pytest.mark.parametrize(
    ("name", "why"),
    {
        "truncated": "ends within its JSON object", "cut in a word": "ends within its JSON object",
        "nine": "'accuracy' is 9, not a number from 1 to 5", "null": "'accuracy' is null", "bool": "'accuracy' is true",
        "good": "'accuracy' is \"good\"", "of ten": "'accuracy' is \"4/10\"",
        "missing": "relevance, fluency, professionalism not rated", "words": "no JSON object",
        "two": "two JSON objects that differ",
        "thinking": "before the model has finished thinking",
    }.items(),
)  # fmt: skip
def test_what_is_no_rating_is_refused_with_its_reason(name, why):
    with pytest.raises(UnreadableError) as caught:
        said(BROKEN[name])
    assert why in str(caught.value)


@given(st.integers(1, len(GOOD) - 1), st.sampled_from(["", "```json\n", "好的：", "<think>x</think>"]))
def test_no_beginning_of_an_answer_passes_as_the_whole(length, before):
    for text in (GOOD, str(json.loads(GOOD))):
        with pytest.raises(UnreadableError):
            said(before + text[:length])


@given(st.one_of(st.text(max_size=40), st.text("{}[]\":,'\\ 45accuracy\n", max_size=60)))
def test_any_text_is_read_or_refused(text):
    try:
        assert set(said(text).value) == set(RATINGS)
    except UnreadableError as error:
        assert str(error)


NAMES = ("think", "thinking", "thought", "reasoning")
PIECES = [f"<{slash}{name}>" for slash in ("", "/") for name in NAMES]


@pytest.mark.parametrize("piece", ["<think>", "<think>x</thinking>", "</think>", "<reasoning><think>"])
def test_marks_of_thoughts_take_no_longer_in_long_answers(piece):
    """Measured by nobody: where the time grows with the square, this test takes many minutes."""
    text = piece * (1_000_000 // len(piece))
    with contextlib.suppress(UnreadableError):
        said(text)
    if "</" in piece:
        assert said(f"{text}</think>{GOOD}").value == RATINGS


@given(st.lists(st.sampled_from([*PIECES, "<Think>", "</THINK>", "a", "{", "\n"]), max_size=12).map("".join))
def test_thoughts_are_those_that_the_plain_expression_finds(text):
    wanted = re.sub(r"<(think|thinking|thought|reasoning)>.*?</\1>", "", text, flags=re.DOTALL | re.IGNORECASE)
    assert _unthought(text) == wanted


def test_an_answer_of_megabytes_is_refused_but_long_thoughts_are_none_of_it():
    for text in ("{a}" * 2_000_000, "x" * 70_000 + GOOD):
        with pytest.raises(UnreadableError, match="more than 65,536 characters"):
            said(text)
    assert said(f"<think>{'x' * 200_000}</think>{GOOD}").value == RATINGS


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, 1),
        (5, 5),
        (4.5, 4.5),
        ("3", 3),
        ("４／５", 4),
        (" 4 / 5 ", 4),
        ("4分", 4),
        ("4 points", 4),
        ({"score": 2, "reason": "x"}, 2),
    ],
)
def test_forms_of_a_rating(value, wanted):
    assert read(json.dumps({"accuracy": value}), ratings({"accuracy": []})).value == {"accuracy": wanted}


@pytest.mark.parametrize(
    "value", [0, 6, -1, 5.1, 10**400, True, False, None, "", "good", "5/10", "4-5", "1e0", [4], {}, {"score": 9}, float("nan")]
)
def test_what_is_none(value):
    with pytest.raises(UnreadableError, match="accuracy"):
        read(json.dumps({"accuracy": value}), ratings({"accuracy": []}))


@pytest.mark.parametrize(
    "key", ["Accuracy", "准确性", "准确度", "准确性 ", "accuracy（准确性）", "准确性/accuracy", "ACCURACY:"]
)
def test_names_of_a_dimension(key):
    assert read(json.dumps({key: 4}), ratings({"accuracy": ["准确性"]})).value == {"accuracy": 4}


@pytest.mark.parametrize(
    "text", ['{"accuracy": 4, "accuracy": 5}', '{"accuracy": 4, "准确性": 5}', '{"accuracy": 4, "a": {"accuracy": 5}}']
)
def test_two_ratings_of_one_dimension_are_none(text):
    with pytest.raises(UnreadableError, match="twice"):
        read(text, ratings({"accuracy": ["准确性"]}))


def test_the_answer_counts_and_not_the_form_that_it_repeats():
    assert said(f'The form is {{"accuracy": "1-5"}}. Mine: {GOOD}').value == RATINGS
    assert said(f"{GOOD}\nAgain: {GOOD}").value == RATINGS
    assert said(f"{GOOD}<think>sure?</think>").value == RATINGS


@pytest.mark.parametrize("text", ['{"a":' * 20_000 + "1" + "}" * 20_000, "{" * 100_000, "[" * 100_000])
def test_depth_is_no_danger(text):
    with pytest.raises(UnreadableError):
        said(text)


def test_line_breaks_within_a_comment_are_let_pass():
    found = said(GOOD.replace("、", "\n"))
    assert (found.comment, found.repaired) == ("礼貌\n准确", False)


def test_json_repair_is_asked_for_the_rest_where_it_is_there(monkeypatch):
    odd = GOOD.replace('"accuracy"', "accuracy")
    monkeypatch.setitem(sys.modules, "json_repair", None)
    with pytest.raises(UnreadableError):
        said(odd)
    monkeypatch.setitem(sys.modules, "json_repair", SimpleNamespace(loads=lambda _: json.loads(GOOD)))
    found = said(odd)
    assert (found.value, found.repaired) == (RATINGS, True)
    with pytest.raises(UnreadableError, match="ends within"):
        said(odd[:-1])


@pytest.mark.parametrize(
    ("text", "wanted"), [('{"winner": "A"}', "A"), ('{"winner": "回答B"}', "B"), ('{"胜者": "平局"}', "tie")]
)
def test_a_choice(text, wanted):
    meaning = choice(("winner", "胜者"), {"A": ["回答A"], "B": ["回答B"], "tie": ["平局"]})
    assert read(text, meaning).value == wanted
    with pytest.raises(UnreadableError, match="none of A, B, tie"):
        read('{"winner": "both are fine"}', meaning)
