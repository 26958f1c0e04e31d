"""Models side by side: which one is marked, what is said of it, and what stands on the page."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest

from mlops_llm.errors import UserError
from mlops_llm.eval import comparison_record, comparison_shown, speed, versus
from mlops_llm.eval.comparison import Comparison, Cost, Model
from mlops_llm.eval.comparison_page import LARGEST, SAMPLES, page
from mlops_llm.eval.comparison_record import PAGE, TABLE, VALUES, recorded
from mlops_llm.eval.conclusion import leaders, sentences
from mlops_llm.eval.config import Eval
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.ops.compare import Compare
from mlops_llm.eval.ops.explain import Explain
from mlops_llm.eval.ops.human_export import HumanExport
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.report.chinese import warning
from mlops_llm.inference.engine import Class, Failure
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.record import Grid, MemoryRun
from tests.outcomes import HOSTILE
from tests.unit.test_page import Page

REFS = ("models:/sales@champion", "runs:/first/checkpoint-200", "runs:/first/checkpoint-300")


def outcome(values: Sequence[float], name: str = "exact_match", most: float | None = 1.0, answer: str = "好") -> Outcome:
    """What an evaluation found that gave these values."""
    samples = [Sample(place, f"问题 {place}", answer, scores={name: each}, seconds=1.0) for place, each in enumerate(values)]
    return Outcome("", "", "rows", "hf", [Score(name, fmean(values), len(values), most=most)], samples, {})


def comparison(*outcomes: Outcome, costs: Sequence[Cost] = (), **other: object) -> Comparison:
    models = [
        Model(place + 1, ref, each, costs[place] if costs else Cost(), f"d{place}", "first" if place else "", place * 100)
        for place, (ref, each) in enumerate(zip(REFS, outcomes, strict=False))
    ]
    rows = versus.tested(models)
    made = Comparison("models on rows", "rows", models, rows, versus.together(models, rows))
    return dataclasses.replace(made, **other)


def hits(right: int, of: int = 100) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def test_the_best_is_marked_only_where_it_is_better_than_every_other_one() -> None:
    clear = comparison(outcome(hits(90)), outcome(hits(60)), outcome(hits(55)))
    (row,) = clear.rows
    assert row.best == 1 and [each.is_significant for each in row.pairs] == [True, True, False]
    assert row.beats(1, 3) and not row.beats(3, 1) and row.gain(3, 1) == pytest.approx(-0.35)
    shared = comparison(outcome(hits(90)), outcome(hits(88)), outcome(hits(55)))
    assert shared.rows[0].best is None and leaders(shared.rows[0]) == [1, 2]
    assert "★" not in str(comparison_shown.table(shared).rows)
    assert comparison_shown.table(clear).rows[0][1:4] == ["0.9 ★", "0.6", "0.55"]
    assert "领先其余模型" in sentences(shared, Lang.zh)[0]


def test_lower_is_better_where_a_score_says_so() -> None:
    outcomes = [outcome(values) for values in (hits(90), hits(20))]
    turned = [
        dataclasses.replace(each, scores=[dataclasses.replace(each.scores[0], higher_is_better=False)]) for each in outcomes
    ]
    found = comparison(*turned)
    assert found.rows[0].best == 2 and found.samples[0].winner == 2
    assert "0.7 behind, 95 %: 0.6" in sentences(found, Lang.en)[0]


def test_every_comparison_of_the_table_counts() -> None:
    """One p of 0.04 is a difference alone, none among fifteen."""
    alone = comparison(outcome([*hits(9, 12), 1.0]), outcome([*hits(1, 12), 1.0]))
    assert alone.rows[0].pairs[0].is_significant
    names = [f"s{place}" for place in range(15)]
    many = []
    for values in ([*hits(9, 12), 1.0], [*hits(1, 12), 1.0]):
        made = outcome(values)
        scores = [dataclasses.replace(made.scores[0], name=name) for name in names]
        samples = [dataclasses.replace(each, scores=dict.fromkeys(names, each.scores["exact_match"])) for each in made.samples]
        many.append(dataclasses.replace(made, scores=scores, samples=samples))
    found = comparison(*many)
    assert found.comparisons == 15 and not any(pair.is_significant for row in found.rows for pair in row.pairs)


def test_what_cannot_be_tested_says_why() -> None:
    neither = outcome([3.0, 4.0])
    neither = dataclasses.replace(neither, scores=[dataclasses.replace(neither.scores[0], higher_is_better=None)])
    (row,) = comparison(neither, neither).rows
    assert not row.pairs and row.untested == "no end of it is the good one"
    other = outcome([1.0, 0.0])
    other = dataclasses.replace(other, scores=[dataclasses.replace(other.scores[0], signature="version 2")])
    assert comparison(outcome([1.0, 0.0]), other).rows[0].untested == "it was not counted alike"

    def answering(template: str) -> Outcome:
        made = outcome([1.0, 0.0])
        scores = [dataclasses.replace(each, signature=f"lm-eval:1|template:{template}|shots:0") for each in made.scores]
        return dataclasses.replace(made, scores=scores)

    assert comparison(answering("a"), answering("b")).rows[0].pairs, "a model's own chat template is a part of it"
    whole = outcome([1.0, 0.0])
    whole = dataclasses.replace(whole, scores=[dataclasses.replace(whole.scores[0], value=0.7)])
    found = comparison(whole, whole)
    assert found.rows[0].untested == "it is no matter of single samples" and found.head is None
    assert sentences(found, Lang.en) == ["No score could be compared: exact_match: it is no matter of single samples."]
    assert sentences(found, Lang.zh) == ["没有可比较的得分：exact_match：它不是单个样本的事。"]


def test_a_reason_of_many_scores_is_said_once() -> None:
    one = outcome([1.0, 0.0])
    other = dataclasses.replace(one, scores=[dataclasses.replace(one.scores[0], name="f1")])
    assert sentences(comparison(one, other), Lang.en) == [
        "No score could be compared: exact_match, f1: not every model has it."
    ]


def test_what_an_operation_does_not_take_is_refused() -> None:
    two = Eval(models=["tiny", "smollm2"], engine=Hf())
    for op, given, name in (
        (Explain(), {"limit": 5}, "limit"),
        (Compare(runs=["a", "b"]), {"models": [], "sample": 5}, "sample"),
        (HumanExport(), {"benchmark": ["gsm8k"]}, "benchmark"),
    ):
        with pytest.raises(UserError) as refused:
            op.prepare(dataclasses.replace(two, **given))
        assert refused.value.where == name


def test_flips_are_named_and_samples_are_sorted_by_disagreement() -> None:
    found = comparison(outcome([1.0, 1.0, 0.0]), outcome([1.0, 0.0, 0.0]))
    first = found.samples[0]
    assert (
        first.samples[0].place == 1 and first.winner == 1 and first.disagreement == 1 and list(first.flips) == ["exact_match"]
    )
    assert comparison_shown.flipped(found, first) == "exact_match: 1 right, 2 wrong"
    assert [each.winner for each in found.samples[1:]] == [None, None]


def test_sentences_say_what_is_cheaper_whether_training_paid_and_what_is_undecided() -> None:
    costs = [Cost(bytes=900), Cost(bytes=300), Cost(bytes=300)]
    found = comparison(outcome(hits(80)), outcome(hits(50)), outcome(hits(76)), costs=costs)
    told = "\n".join(sentences(found, Lang.en))
    assert f"{REFS[2]} is cheaper than {REFS[0]} (300 B instead of 900 B on disk) and in no score significantly worse" in told
    assert f"{REFS[1]} is cheaper" not in told
    assert "Training on from step 100 to 200" in told and "paid: exact_match is 0.26 better" in told
    undecided = next(each for each in found.rows[0].pairs if not each.is_significant)
    assert f"about {found.needs(undecided)} samples like these would find a difference of this size" in told
    assert "With 100 samples, gaps in exact_match under" in told
    chinese = sentences(found, Lang.zh)
    assert len(chinese) == len(sentences(found, Lang.en)) and "继续训练到第 200 步" in "".join(chinese)
    bounds = found.resolved(found.rows[0])
    assert bounds and all(each.is_significant for each in found.rows[0].pairs if abs(each.found.difference) >= bounds[1])
    harmed = comparison(outcome(hits(80)), outcome(hits(76)), outcome(hits(50)))
    assert "did harm: exact_match is 0.26 worse" in "\n".join(sentences(harmed, Lang.en))


@pytest.mark.parametrize(
    ("rounds", "cheaper"),
    [
        ([(1.0, 1.1), (0.4, 0.5)], True),
        ([(1.0, 1.1), (0.4, 1.05)], False),  # something else ran while the second was measured
        ([(0.4, 0.5), (1.0, 1.1)], False),
        ([None, (0.4, 0.5)], False),
    ],
)
def test_seconds_make_a_model_cheaper_only_where_every_round_is_faster(rounds: list[Any], cheaper: bool) -> None:
    costs = [Cost(seconds=fmean(each or (1.0,)), between=each) for each in rounds]
    found = comparison(outcome(hits(50)), outcome(hits(50)), costs=costs)
    assert (f"{REFS[1]} is cheaper than {REFS[0]}" in "\n".join(sentences(found, Lang.en))) is cheaper


def test_of_equal_models_the_cheaper_one_is_named_whatever_their_order() -> None:
    for sizes in ((50, 100, 10), (100, 50, 10)):  # the last one is worse
        found = comparison(outcome(hits(90)), outcome(hits(90)), outcome(hits(10)), costs=[Cost(bytes=each) for each in sizes])
        assert f"{REFS[sizes.index(50)]} is cheaper than {REFS[sizes.index(100)]}" in "\n".join(sentences(found, Lang.en))
    for costs in ([Cost(bytes=300), Cost(bytes=900)], [Cost(bytes=900), Cost(bytes=300)]):
        found = comparison(outcome(hits(50)), outcome(hits(50)), costs=costs)
        cheap, dear = sorted(REFS[:2], key=lambda each: costs[REFS.index(each)].bytes)
        assert f"{cheap} is cheaper than {dear} (300 B instead of 900 B on disk)" in "\n".join(sentences(found, Lang.en))


def test_models_are_measured_there_and_back_and_what_moved_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        def __init__(self, model: str) -> None:
            self.model = self.settings = model

    asked = list[str]()
    took = iter([0.1, 0.2, 0.3, 0.2, 0.2, 0.9])

    def measure(model: str) -> speed.Speed:
        asked.append(model)
        seconds = next(took)
        return speed.Speed(((seconds, 1 / seconds), (seconds, 1 / seconds)), int(seconds * 100))

    monkeypatch.setattr(speed, "_in_a_process", measure)
    found = speed.measured([Asked(each) for each in "ABC"], back=True)  # type: ignore[misc]
    assert asked == ["A", "B", "C", "C", "B", "A"]
    assert [each.between for each in found] == [(0.1, 0.9), (0.2, 0.2), (0.2, 0.3)]
    assert (found[0].seconds, found[0].memory, found[1].tokens) == (0.5, 90, 5.0)
    (told,) = speed.restless(["A", "B", "C"], found)
    assert told == "A took 0.1–0.9 s a sample while it was measured: something else may have run"
    assert warning(told, Lang.zh) == "A 在测量期间每个样本用了 0.1–0.9 秒：机器可能在做别的事"
    assert not speed.restless(["B"], [found[1]])


def test_the_number_of_a_sentence_lies_in_its_interval_whoever_is_ahead() -> None:
    for values in ((hits(50), hits(53)), (hits(53), hits(50))):
        told = sentences(comparison(*map(outcome, values)), Lang.en)[1]
        ahead, gap, low, high = re.match(r"Undecided: (\S+) is ([\d.]+) ahead .* \(95 %: (\S+) to ([\d.]+),", told).groups()
        assert ahead == REFS[values[1] == hits(53)] and float(low) <= float(gap) <= float(high)
    told = sentences(comparison(outcome(hits(50)), outcome(hits(76)), outcome(hits(50))), Lang.en)
    harmed = next(each for each in told if "did harm" in each)
    gap, low, high = re.search(r"is ([\d.]+) worse \(95 %: ([\d.]+) to ([\d.]+),", harmed).groups()
    assert float(low) <= float(gap) <= float(high)


def test_who_is_no_worse_than_anyone_is_not_called_ahead() -> None:
    """The first beats the third, and the second lies between them: neither worse than the one nor better than the other."""
    draw = random.Random(4)
    first = [float(draw.choice([3, 4, 5])) for _ in range(60)]
    third = [max(1.0, each - draw.choice([0, 0, 1, 1, 2]) + draw.choice([0, 0, 1])) for each in first]
    second = [min(5.0, max(1.0, round((a + b) / 2 + draw.choice([-1, 0, 0, 1])))) for a, b in zip(first, third, strict=True)]
    found = comparison(*(outcome(values, most=5.0) for values in (first, second, third)))
    assert [each.is_significant for each in found.rows[0].pairs] == [False, True, False] and leaders(found.rows[0]) == [1, 2]
    said = f"In exact_match no model is significantly better than {REFS[0]} and {REFS[1]};"
    assert sentences(found, Lang.en)[0].startswith(said)


def test_who_did_not_answer_is_named() -> None:
    whole = outcome(hits(3, 6))
    lacking = dataclasses.replace(whole.samples[5], answer="", failure=Failure(Class.empty, "no text", 0.1))
    found = comparison(whole, dataclasses.replace(whole, samples=[*whole.samples[:5], lacking]))
    assert f"{REFS[1]} gave no answer to 1 of 6 samples; each counts as an empty one." in sentences(found, Lang.en)
    assert ("no answer", "没有回答", ["0", "1"]) in comparison_shown.costs(found) and "没有回答" in page(found, Lang.zh)


def test_where_nothing_differs_the_samples_still_do_not_resolve_everything() -> None:
    found = comparison(outcome(hits(50)), outcome(hits(50)))
    low, high = found.resolved(found.rows[0])
    assert low == high == pytest.approx(2.8 * (1 - 0.025**0.01) ** 0.5 / 10, rel=0.01)


def test_speeds_that_do_not_compare_are_not_shown() -> None:
    there = Cost(bytes=100, seconds=1.0, tokens=50.0)
    found = comparison(outcome([1.0, 0.0]), outcome([1.0, 0.0]), costs=[there, Cost(bytes=100)])
    rows = {english: cells for english, _, cells in comparison_shown.costs(found)}
    assert rows["seconds a sample"] == rows["tokens/s"] == ["not comparable"] * 2 and rows["size on disk"] == ["100 B"] * 2
    judged = Cost(judge={"calls": 26.0, "known": 4.0, "cost": 0.12})
    found = comparison(outcome([1.0]), outcome([1.0]), costs=[judged, judged])
    assert ("judge", "评委用量", ["26 calls (4 known), cost 0.12"] * 2) in comparison_shown.costs(found)


def test_the_record_holds_every_number_and_the_page_shows_it() -> None:
    run, found = MemoryRun(), comparison(outcome(hits(90)), outcome(hits(60)), warnings=("as one is told",))
    result = recorded(found, run, Lang.zh)
    assert ("compare/1/exact_match", 0.9, 0, None, None) in run.kept_metrics and len(run.kept_metrics) == 2
    values = json.loads(run.artifacts[VALUES])
    (pair,) = values["scores"][0]["pairs"]
    assert pair["significant"] and pair["difference"] == pytest.approx(0.3) and pair["p_holm"] == pair["p"] < 0.001
    assert values["scores"][0]["best"] == 1 and len(values["samples"]) == 100 and len(values["conclusion"]["zh"]) > 1
    table = run.artifacts[TABLE]
    assert {len(each) for each in table.values()} == {100} and table["winner"][0] == 1 and table["2 answer"][0] == "好"
    assert result.values["best"] == {"exact_match": REFS[0]}
    shown = Page(run.artifacts[PAGE])
    assert "0.9 ★" in shown.inside("b") and "as one is told" in shown.text and "显著优于" in shown.text
    assert shown.elements["script"] == 1 and all(f"问题 {place}" in shown.text for place in (0, 99))


def test_numbers_alone_are_recorded_where_texts_are_not_wanted() -> None:
    run = MemoryRun()
    ones = [outcome(hits(right, 4), answer="独一无二") for right in (3, 1)]
    result = recorded(comparison(*ones), run, Lang.zh, texts=False)
    shown = [each.rows if isinstance(each, Grid) else each for each in result.shown]
    everything = json.dumps([run.artifacts, shown], ensure_ascii=False)
    assert "问题 " not in everything and "独一无二" not in everything and "0.75" in everything


def test_nothing_a_model_writes_is_more_than_text() -> None:
    ones = [outcome([1.0, 0.0], answer=HOSTILE), outcome([0.0, 1.0], answer=HOSTILE)]
    models = comparison(*ones)
    hostile = [dataclasses.replace(each, ref=HOSTILE) for each in models.models]
    found = dataclasses.replace(models, title=HOSTILE, models=hostile, warnings=(HOSTILE,), unequal=HOSTILE)
    plain, shown = Page(page(models, Lang.en)), Page(page(found, Lang.en))
    assert shown.elements["script"] == 1 and not {"img", "style"} & {*(shown.elements - plain.elements)}
    assert not any(name.startswith("on") for name, _ in shown.attributes)
    for line in comparison_shown.lines(found, Lang.en):
        said = (
            [str(cell) for row in line.rows for cell in row] + [line.title, *line.columns] if isinstance(line, Grid) else [line]
        )
        assert not any(hidden in each for each in said for hidden in ("\x1b", "\u202e", "\x07"))


def test_the_page_of_many_long_answers_is_below_a_megabyte() -> None:
    chars = [chr(0x4E00 + place) for place in range(3000)]
    values, made = random.Random(0), []
    for _ in range(3):
        made.append(outcome([float(values.random() < 0.5) for _ in range(SAMPLES + 10)], answer="".join(chars)))
    shown = page(comparison(*made), Lang.zh)
    assert len(shown.encode()) <= LARGEST and "… and 10 more in the artifacts" in shown


def test_answers_that_failed_count_as_the_evaluation_counts_them() -> None:
    values = [1.0, 1.0, 0.0]
    one = outcome(values)
    failed = dataclasses.replace(one.samples[2], answer="", failure=Failure(Class.timeout, "late"))
    one = dataclasses.replace(one, samples=[*one.samples[:2], failed])
    found = comparison(one, outcome([1.0, 1.0, 1.0]))
    assert found.rows[0].pairs[0].found.count == 3
    assert "timeout" in page(found, Lang.en) and "timeout" in str(comparison_record.columns(found)["1 failure"])
