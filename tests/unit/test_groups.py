"""Scores by what rows say of themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlops_llm.eval.groups import groups
from mlops_llm.eval.metric import Item
from mlops_llm.eval.metrics.bleu import Bleu
from mlops_llm.eval.metrics.exact_match import ExactMatch
from mlops_llm.eval.metrics.length import Length
from mlops_llm.eval.metrics.perplexity import Perplexity
from mlops_llm.eval.outcome import Group, Sample

ANSWERS = ["我喜欢喝茶", "完全不同的话", "您好请问有货吗", ""]
WANTED = ["我喜欢喝茶", "天气很好啊", "您好请问有货", "不知道"]
ITEMS = [Item(answer, [wanted]) for answer, wanted in zip(ANSWERS, WANTED, strict=True)]


def samples(key, *values, **scores):
    rows = [Sample(place, "问", ANSWERS[place], metadata={key: value} if value else {}) for place, value in enumerate(values)]
    told = [{name: each[place] for name, each in scores.items() if each[place] is not None} for place in range(len(values))]
    return [
        Sample(row.place, row.prompt, row.answer, metadata=row.metadata, scores=one)
        for row, one in zip(rows, told, strict=True)
    ]


def test_a_group_has_the_scores_of_its_rows():
    rows = samples("topic", "b", "a", "b", None)
    found = groups(rows, ITEMS, [Bleu(), ExactMatch()])
    assert [(each.key, each.value, each.count) for each in found] == [("topic", "a", 1), ("topic", "b", 2)]
    assert found[1].scores["exact_match"] == 0.5
    assert found[1].scores["bleu"] == Bleu().score([ITEMS[0], ITEMS[2]]).total["bleu"] > 50 > found[0].scores["bleu"]


def test_scores_of_a_judge_are_means_over_those_that_have_them():
    rows = samples("topic", "a", "a", "b", "b", judge=[4.0, 2.0, None, None], exact_match=[9.0] * 4)
    assert groups(rows, ITEMS, [ExactMatch()]) == [
        Group("topic", "a", 2, {"exact_match": 0.5, "judge": 3.0}),
        Group("topic", "b", 2, {"exact_match": 0.0}),
    ]


def test_failed_rows_count_in_a_group_as_they_do_in_all():
    rows = samples("topic", "a", "b", "a", "a")
    items = [replace(each, tokens=2) for each in ITEMS]
    few, many = (each.scores for each in groups(rows, items, [Length(), ExactMatch(), Perplexity()])[::-1])
    assert many == {"length_tokens": 2, "length_characters": 6, "exact_match": pytest.approx(1 / 3)}, "of two of three answers"
    assert set(few) == set(many), "no likelihood is known"


@pytest.mark.parametrize("values", [("a",) * 4, ("a", "b", "c", "d"), (None,) * 4])
def test_what_groups_nothing_is_left_out(values):
    assert groups(samples("key", *values), ITEMS, [ExactMatch()]) == []
