"""The page of an evaluation: what is on it, and that nothing a model writes can be more than text."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.eval import charts, markup
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.page import FAILURES, LONGEST, LOWEST, SAMPLES, page
from tests.outcomes import DIMENSIONS, HOSTILE, everywhere, outcome, sample

VOID = {"meta", "rect", "path"}


class Page(HTMLParser):
    """What a browser makes of a page: elements, their attributes, their text, and whether they are closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def inside(self, name: str) -> list[str]:
        return [text for tag, text in self.texts if tag == name]

    @property
    def text(self) -> str:
        return "".join(text for tag, text in self.texts if tag != "style")


def test_the_page_shows_what_was_found():
    found = Page(page(outcome()))
    assert found.inside("h1") == ["sales@challenger on sales_eval[30]"]
    assert found.inside("b")[:4] == ["4.29 / 5", "30", "26", "4"]
    for name in (*DIMENSIONS, "bleu"):
        assert name in found.inside("b") and name in found.inside("figcaption")
    for text in (
        "timeout 1, unparsable 1, too long 1, empty 1", "7 % of items seen in training; 4.31 on the rest", "4.12 to 4.65",
        "物流", "这款手机支持无线充电吗？", "您好，这个问题我需要核实以后再回复您。", "没有回答问题，只是套话。",
        "no whole answer within 60 s",
        "cannot be told", "temperature 0.7", "label by answer", "1.4 GB", "成功", "Success", "nrefs:1|case:mixed",
    ):  # fmt: skip
        assert text in found.text, text
    assert found.elements["article"] == 30 and found.elements["figure"] == 6


def test_it_needs_nothing_from_elsewhere():
    source = page(outcome())
    found = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(found.elements)
    assert not {"src", "href", "style", "srcset"} & {name for name, _ in found.attributes}
    assert "url(" not in source and "@import" not in source
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes


def test_without_texts_there_are_numbers_only():
    found = Page(page(outcome(), texts=False))
    assert found.elements["article"] == 0 and "无线充电" not in found.text and "客户：在吗" not in found.text
    assert found.inside("b")[:4] == ["4.29 / 5", "30", "26", "4"] and "no whole answer within 60 s" in found.text


def test_what_a_model_writes_is_text():
    plain, hostile = Page(page(everywhere("text"))), Page(page(everywhere(HOSTILE)))
    assert hostile.elements == plain.elements
    names = {name for name, _ in plain.attributes}
    assert {name for name, _ in hostile.attributes} == names and not any(name.startswith("on") for name in names)
    assert "<script>alert(1)</script>" in hostile.text


def test_nothing_unseen_is_left_in_it():
    source = page(everywhere(HOSTILE))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]", source)
    assert "\\u202egnp.exe" in source and "\\u0000" in source and "\\udc80" in source
    source.encode("utf-8")


@given(st.text(st.characters(codec=None)))
def test_any_text_comes_out_as_it_is_or_escaped(text):
    found = Page(markup.tag("p", text, title=text))
    assert found.elements == {"p": 1}
    assert markup.tag("p", text).encode("utf-8")
    if text.isprintable() and text:
        assert found.text == text and found.attributes == [("title", text)]


def test_signs_that_are_written_with_joiners_stay():
    family = "👨‍👩‍👧 नमस्ते می‌خواهم ❤️"
    assert family in page(everywhere(family))


def test_ten_thousand_samples_and_answers_of_any_length_leave_it_small():
    many = [
        dataclasses.replace(sample(place), answer="长" * 100_000, prompt="<" * 100_000, comment="&" * 100_000)
        for place in range(60)
    ]
    many += [dataclasses.replace(sample(7), place=place) for place in range(60, 10_000)]
    source = page(outcome(many, warnings=("w" * 100_000,), facts={"f": "x" * 100_000}, title="t" * 100_000))
    assert len(source.encode()) < 4_000_000
    found = Page(source)
    assert found.elements["article"] == SAMPLES + LOWEST
    assert f"First {SAMPLES} of 10000 samples" in found.text
    assert "100,000 characters, whole in the table of answers" in found.text
    assert "长" * LONGEST in found.text and "长" * (LONGEST + 1) not in found.text
    assert f"… and {9941 + 3 - FAILURES} more in the artifacts" in found.text


def test_the_worst_answers_are_shown_where_there_are_many():
    many = [
        dataclasses.replace(sample(0), place=place, scores={"bleu": 100.0 - place}, answer=f"<{place}>") for place in range(99)
    ]
    found = Page(page(outcome(many, scores=[Score("bleu", 51.0, 99, most=100)])))
    assert "Lowest by bleu" in found.inside("h2")
    assert [text for text in found.inside("dd") if text.startswith("<")][SAMPLES:] == [
        f"<{98 - place}>" for place in range(LOWEST)
    ]


def test_a_page_of_little_has_no_empty_parts():
    bare = Outcome("tiny on gsm8k[50]", "tiny", "", "hf", [Score("gsm8k[50]/exact_match", 0.02, 50, most=1)], [], {})
    found = Page(page(bare))
    assert found.inside("h2") == ["Scores"]
    assert "0.02 / 1" in found.inside("b") and "gsm8k[50]/exact_match" in found.text
    assert Page(page(Outcome("nothing", "tiny", "", "hf", [], [], {}))).inside("h2") == []


def test_a_score_without_a_largest_value_has_no_bar():
    plain = Outcome("t", "m", "d", "hf", [Score("perplexity", 12.5, 9, False)], [], {})
    found = Page(page(plain))
    assert "svg" not in found.elements and "12.5" in found.text and "↓" in found.text


@pytest.mark.parametrize(
    ("values", "most", "wanted"),
    [
        ([1.0, 5.0, 5.0, 4.0], 5, {"1": 1, "2": 0, "3": 0, "4": 1, "5": 2}),
        ([0.0, 1.0, 1.0], 1, {"0": 1, "1": 2}),
        ([0.0, 3.0], 5, {"0": 1, "1": 0, "2": 0, "3": 1, "4": 0, "5": 0}),
        ([4.25, 4.75, 5.0], 5, {"1": 0, "1.5": 0, "2": 0, "2.5": 0, "3": 0, "3.5": 0, "4": 1, "4.5": 2}),
        ([7.0, 9.0], None, {"7": 1, "8": 0, "9": 1}),
        ([7.0, 24.0, 25.0], None, {"7": 1, "9": 0, "11": 0, "13": 0, "15": 0, "17": 0, "19": 0, "21": 0, "23": 1, "25": 1}),
        ([0.25], None, {"0.25": 1}),
        ([0.0, 5e-324, 5e-324], None, {"0": 3}),
        ([0.0, 10.5, 100.0], 100, {"0": 1, "10": 1, "20": 0, "30": 0, "40": 0, "50": 0, "60": 0, "70": 0, "80": 0, "90": 1}),
        ([float("nan")], 5, {}),
        ([], None, {}),
    ],
)
def test_values_are_counted_in_ranges_that_a_person_expects(values, most, wanted):
    assert {each.label: each.count for each in charts.bins(values, most)} == wanted


@given(st.lists(st.floats(0, 100, allow_nan=False), min_size=1) | st.lists(st.integers(0, 100).map(float), min_size=1))
def test_every_value_is_in_one_range(values):
    assert sum(each.count for each in charts.bins(values)) == len(values)
    assert sum(each.count for each in charts.bins(values, 100)) == len(values)


def test_a_bar_is_as_long_as_its_value_and_never_leaves_its_track():
    assert 'width="180.0"' in charts.bar(4.5, 5) and 'width="200.0"' in charts.bar(7, 5) and 'width="0.0"' in charts.bar(-1, 5)
    assert "M160.0 9H200.0" in charts.bar(4.5, 5, (4, 6))
