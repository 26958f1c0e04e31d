"""From answers and ratings to scores: no failure of a model raises one."""

from __future__ import annotations

import pytest

from mlops_llm.eval import interval, scores
from mlops_llm.eval.groups import groups
from mlops_llm.eval.judge import Verdict
from mlops_llm.eval.judges.pairwise import Pairwise
from mlops_llm.eval.judges.rubric import Rubric
from mlops_llm.eval.metric import Item
from mlops_llm.eval.metrics.bleu import Bleu
from mlops_llm.eval.metrics.exact_match import ExactMatch
from mlops_llm.eval.metrics.label import Label
from mlops_llm.eval.metrics.length import Length
from mlops_llm.eval.outcome import Sample
from mlops_llm.inference.engine import Class, Failure

GOOD = Verdict({"accuracy": 5.0, "fluency": 4.0})
NONE = Failure(Class.empty, "there is no answer to rate")
UNRATED = Failure(Class.unparsable, "the judge rated accuracy 9 of 5")


def by_name(made: scores.Scored) -> dict[str, scores.Score]:
    return {each.name: each for each in made.scores}


def test_an_answer_that_is_none_has_the_worst_rating_and_one_that_was_not_rated_has_none() -> None:
    judge = Rubric(template="{prompt} {response}", dimensions=["accuracy", "fluency"])
    found = by_name(scores.rated([GOOD, NONE, UNRATED], [False, True, False], judge))
    overall = found["judge/overall"]
    assert (overall.value, overall.count, overall.answered) == ((4.5 + 1) / 2, 2, 4.5)
    assert found["judge/accuracy"].value == 3.0
    whole = by_name(scores.rated([GOOD, UNRATED], [False, False], judge))["judge/overall"]
    assert (whole.value, whole.count, whole.answered) == (4.5, 1, None)


def test_ratings_of_a_scale_are_no_proportion() -> None:
    judge = Rubric(template="{prompt} {response}", dimensions=["accuracy"])
    found = by_name(scores.rated([Verdict({"accuracy": 1.0})] * 20, [False] * 20, judge))
    low, high = found["judge/accuracy"].interval or (0, 0)
    assert low == 1 and 1 < high < 2 and interval.of_mean([1.0] * 20) == interval.wilson(20, 20)


def test_a_metric_counts_alike_in_every_part_of_the_rows() -> None:
    items = [Item("good or bad", label=each, references=["夜"] if each == "bad" else ["night"]) for each in ("good", "bad")]
    seen = [True, False]
    for metric in (Label(), Bleu()):
        settled = metric.settled(items)
        assert settled.score(items[:1]).signature == settled.score(items).signature == metric.score(items).signature
    samples = [Sample(place, "", one.answer, metadata={"of": "ab"[place % 2]}) for place, one in enumerate([*items, *items])]
    (of_a, of_b) = groups(samples, [*items, *items], [Label().settled(items)])
    assert of_a.scores["label_accuracy"] == of_b.scores["label_accuracy"] == 0
    whole = by_name(scores.measured({"label": Label().settled(items)}, items, [False, False], seen))["label_accuracy"]
    assert whole.value == 0 and whole.seen is not None and whole.seen.rest == 0


def test_the_reference_wins_against_nothing() -> None:
    judge = Pairwise(template="{prompt} {first} {second}")
    won = Verdict({"win": 1.0, "tie": 0.0, "loss": 0.0, "flip": 0.0})
    found = by_name(scores.rated([won, NONE], [False, True], judge))
    assert [found[f"judge/{name}"].value for name in ("win", "loss", "overall")] == [0.5, 0.5, 0.5]


def test_an_answer_that_failed_is_an_empty_one_for_a_metric_and_none_for_a_length() -> None:
    items = [Item("好", ["好"], tokens=2), Item("", ["好"])]
    found = by_name(scores.measured({"exact_match": ExactMatch(), "length": Length()}, items, [False, True]))
    match, length = found["exact_match"], found["length_tokens"]
    assert (match.value, match.count, match.answered) == (0.5, 2, 1.0)
    assert (length.value, length.count) == (pytest.approx(2.0), 1)
