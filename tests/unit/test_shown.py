"""What the terminal, the tables and the pictures say of an evaluation."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.text import Text

from mlops_llm import console
from mlops_llm.eval import figures, shown
from mlops_llm.eval.outcome import Outcome, Sample, Score, Seen
from mlops_llm.inference.engine import Class, Failure
from mlops_llm.record import Answer, Grid
from tests.outcomes import DIMENSIONS, FAILED, outcome, sample

RATED = Score("judge/accuracy", 4.42, 100, most=5)


def only(score: Score, *samples: Sample) -> Outcome:
    return Outcome("m on d", "m", "d", "hf", [score], samples, {})


def printed(outcome: Outcome, samples: int = shown.SAMPLES) -> str:
    """As a terminal shows it."""
    said = []
    for each in shown.lines(outcome, samples):
        if isinstance(each, Grid):
            said += [each.title, "  ".join(each.columns), *("  ".join(map(str, row)) for row in each.rows)]
        else:
            said.append(Text.from_markup(each, emoji=False).plain)
    return "\n".join(said)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (RATED, "4.42"),
        (dataclasses.replace(RATED, seen=Seen(0.03, 4.31)), "4.42 (3 % of items seen in training; 4.31 on the rest)"),
        (dataclasses.replace(RATED, seen=Seen(0.0, 4.42)), "4.42 (no item seen in training)"),
        (
            dataclasses.replace(RATED, seen=Seen(0.001, 4.42)),
            "4.42 (< 1 % of items seen in training; 4.42 on the rest)",
        ),
        (dataclasses.replace(RATED, seen=Seen(0.999, 4.4)), "4.42 (> 99 % of items seen in training; 4.40 on the rest)"),
        (dataclasses.replace(RATED, seen=Seen(1.0, None)), "4.42 (100 % of items seen in training)"),
        (Score("exact_match", 0.123456, 10, most=1), "0.1235"),
        (Score("perplexity", 12.3456, 10, False), "12.35"),
    ],
)
def test_a_score_says_what_of_it_was_met_in_training(score, said):
    assert shown.stamped(score) == said


def test_there_is_an_overall_score_of_a_judge_only():
    assert shown.overall(outcome()).value == pytest.approx(4.29, abs=0.01)
    assert shown.overall(only(Score("bleu", 30.0, 3, most=100))) is None


def test_bars_are_exact_to_an_eighth():
    assert (
        shown.bar(0.85) == "████████▌"
        and shown.bar(0) == ""
        and shown.bar(1) == "█" * 10 == shown.bar(7)
        and shown.bar(-1) == ""
    )
    assert shown.bar(0.9) == "█" * 9 and shown.bar(0.0125) == "▏"


def test_the_terminal_shows_scores_groups_samples_and_failures():
    said = printed(outcome())
    for text in (
        "accuracy  4.38 (7 % of items seen in training; 4.46 on the rest)  ████████▊  4.12 to 4.65  26",
        "overall  4.29", "bleu  34.69", "topic  物流  10", "first samples (5 of 30)", "   1  这款手机支持无线充电吗？",
        "accuracy 5  relevance 5  fluency 5  professionalism 4", "comment    没有回答问题，只是套话。",
        "reference  支持，最高可达",
        "timeout  1  8  no whole answer within 60 s, in 4 attempts", "⚠ the model's history is not known",
        "label by answer", "yes  8  2",
    ):  # fmt: skip
        assert text in said, text
    assert "sample" not in printed(outcome(), samples=0)


def test_totals_are_in_the_table():
    rows = shown.table(outcome())
    assert (rows["samples"], rows["success"]) == ("30", "26")
    assert rows["failed"] == "4 (timeout 1, unparsable 1, too long 1, empty 1)"
    assert rows["overall score"] == "4.29 / 5 (7 % of items seen in training; 4.31 on the rest)"
    assert rows["dataset"] == "sales_eval[30]" and rows["tokens/s"] == "61"
    assert shown.table(only(RATED, sample(0)))["failed"] == "0"
    assert "samples" not in shown.table(only(RATED))


def test_many_failures_of_a_class_are_a_few_lines():
    lost = [dataclasses.replace(sample(7), place=place) for place in range(1000)]
    said = printed(outcome(lost), samples=0)
    assert "timeout  1000  1  no whole" in said and "997 more" in said and len(said.splitlines()) < 40


def test_nothing_a_model_writes_gives_orders_to_the_terminal():
    bad = "[red]x[/] [/dim] \\[ \x1b[2J\x1b]0;title\x07 a\rb\u202e\x00 \udc80 \n\n" + "长" * 100_000
    hostile = Sample(0, bad, bad, (bad,), bad, {bad: bad}, {bad: 1.0}, bad, Failure(Class.server, bad))
    score = Score(bad, 1.0, 1, most=5)
    said = printed(Outcome(bad, bad, bad, bad, [score], [hostile], {bad: bad}, warnings=(bad,)))
    assert not any(each in said for each in "\x1b\x07\r\x00\u202e\udc80")
    assert "[red]x[/] [/dim]" in said and len(said) < 5000
    rows = shown.table(Outcome(bad, bad, bad, bad, [score], [hostile], {bad: bad}))
    assert not any(each in "".join([*rows, *rows.values()]) for each in "\x1b\x07\x00\u202e\udc80")


def test_lines_are_printed_as_they_are(capsys):
    for each in shown.lines(outcome()):
        if isinstance(each, str):
            console.text(each)
        else:
            console.grid(each.title, each.columns, each.rows)
    said = capsys.readouterr().out
    assert "███" in said and "衣服洗过一次就缩水了" in said and "[dim]" not in said


def test_all_samples_are_in_the_table_of_answers():
    table = shown.columns(outcome())
    assert len({len(values) for values in table.values()}) == 1 and table["row"] == list(range(1, 31))
    assert table["judge/accuracy"][0] == 5.0 and table["judge/accuracy"][7] is None
    assert table["failure"][7] == "timeout" and table["cause"][7] == FAILED[7].cause
    assert table["metadata.难度"][0] == "高" and "label" not in table
    assert table["flags"][3:5] == ["cut", "repaired"]
    json.dumps(table, allow_nan=False)


def test_answers_are_handed_to_the_record():
    found = shown.answers(outcome(), 10)
    assert len(found) == 10 and all(isinstance(each, Answer) for each in found)
    assert found[0].judged == tuple(f"judge/{each}" for each in (*DIMENSIONS, "overall"))
    assert found[7].failure == ("timeout", FAILED[7].cause) and found[7].text == "" and found[7].scores == {}
    assert shown.answers(outcome(), 0) == []
    lost = dataclasses.replace(sample(0), scores={"perplexity": float("inf"), "bleu": 3.0})
    assert shown.answers(outcome([lost]), 1)[0].scores == {"bleu": 3.0}


def test_a_judge_and_a_metric_of_one_name_are_told_apart():
    both = dataclasses.replace(outcome(), scores=[RATED, Score("accuracy", 0.5, 3, most=1)])
    assert [row[0] for row in shown.scores(both).rows][:2] == ["judge/accuracy", "accuracy"]


def test_pictures_are_drawn_with_chinese_names_and_hostile_ones():
    bad = "准确性 $x_1$ \x1b\u202e" + "长" * 500
    found = outcome(title=f"{bad} on d")
    scores = [dataclasses.replace(each, name=f"judge/{bad}") if each.name == "judge/fluency" else each for each in found.scores]
    drawn = figures.figures(dataclasses.replace(found, scores=scores))
    assert set(drawn) == {"plots/scores.png", "plots/distribution.png"}
    for figure in drawn.values():
        file = io.BytesIO()
        figure.savefig(file, dpi=30)
        assert file.getvalue().startswith(b"\x89PNG")


def test_no_picture_of_nothing():
    assert figures.figures(Outcome("t", "m", "", "hf", [], [], {})) == {}
    assert set(figures.figures(only(RATED))) == {"plots/scores.png"}


def test_rows_of_several_sets_are_told_apart():
    twice = outcome([*outcome().samples[:3], *outcome().samples[:3]])
    assert [each.place for each in shown.answers(twice, 5)] == [0, 1, 2, 3, 4]
