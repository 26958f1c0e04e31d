"""What people's ratings come to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from mlops_llm.errors import UserError
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.eval.config import Eval
from mlops_llm.eval.interval import of_mean, wilson
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.ops.human_export import HumanExport
from mlops_llm.eval.outcome import Sample
from mlops_llm.eval.people import calibration, checked, imported, recorded, returned
from mlops_llm.eval.people.ballot import Answer, Ballot, Kind, Line, Model
from mlops_llm.eval.people.checked import Filled
from mlops_llm.eval.people.export import Wanted, _telling, apart, refuse
from mlops_llm.eval.people.found import Found
from mlops_llm.eval.people.recorded import Ratings
from mlops_llm.record import MemoryRun
from mlops_llm.tracking.ledger import RunRow
from tests.ballots import Score, ballot, by_model, fill, sheets

EXPORTED = RunRow("0" * 32, "export-1", "1", "default", "FINISHED", {}, {}, {})


def worse(line: Line, of: Answer, name: str) -> int:
    """Ratings a point lower than `by_model`."""
    return by_model(line, of, name) - 1


def turned(line: Line, of: Answer, name: str) -> int:
    """Another opinion of each half."""
    return 6 - by_model(line, of, name)


def rated(folder: Path, found: Ballot, *scores: Score) -> tuple[Ballot, list[Filled]]:
    """Each rater's file, filled in."""
    found, paths = sheets(found, folder, raters=len(scores))
    return found, [
        checked.check(returned.read(fill(path, found, each)), found) for path, each in zip(paths, scores, strict=True)
    ]


def test_scores_are_means_over_raters_and_then_over_rows(tmp_path: Path) -> None:
    ballot_, files = rated(tmp_path, ballot(), by_model, worse)
    found = Found(ballot_, files)
    first = {each.name: each for each in found.scores(0)}
    assert set(first) == {"human/accuracy", "human/fluency", "human/overall"}
    rows = [4 + place % 2 - 0.5 for place in range(8)]
    score = first["human/overall"]
    assert score.value == pytest.approx(4.0) and score.count == 8 and score.interval == of_mean(rows, most=5, least=1)
    assert [each.value for each in found.scores(1)] == [pytest.approx(2.0)] * 3


def test_an_answer_that_is_rated_twice_counts_as_at_first(tmp_path: Path) -> None:
    def tired(line: Line, of: Answer, name: str) -> int:
        return 1 if line.kind is Kind.repeat else 5

    found = Found(*rated(tmp_path, ballot(), tired))
    assert [each.value for model in (0, 1) for each in found.scores(model)] == [5.0] * 6


def test_an_answer_that_is_none_is_the_worst_and_loses(tmp_path: Path) -> None:
    whole = ballot()
    gone = whole.answers[1]
    fewer = dataclasses.replace(whole, answers=tuple(each for each in whole.answers if each is not gone), none=((0, 1),))
    ballot_, files = rated(tmp_path, fewer, by_model)
    found = Found(ballot_, files)
    assert found.values("overall", 1)[0] == 1.0 and len(found.values("overall", 1)) == 8
    (wins,) = found.wins()
    assert (wins.win, wins.tie, wins.loss, wins.count) == (8, 0, 0, 8)


def test_wins_have_an_interval_and_ties_count_half(tmp_path: Path) -> None:
    def some(line: Line, of: Answer, name: str) -> int:
        return 3 + (1 if of.model == 0 and of.place < 3 else -1 if of.model == 0 and of.place == 7 else 0)

    found = Found(*rated(tmp_path, ballot(), some))
    (wins,) = found.wins()
    assert (wins.win, wins.tie, wins.loss) == (3, 4, 1) and wins.rate == 5 / 8 and wins.interval == wilson(5, 8)


def test_raters_agree_as_far_as_they_do(tmp_path: Path) -> None:
    same = Found(*rated(tmp_path / "same", ballot(), by_model, by_model)).agreement()["accuracy"]
    assert same.ordinal == same.interval == same.kappa == 1.0 and same.items == 16
    apart_ = Found(*rated(tmp_path / "apart", ballot(), by_model, turned)).agreement()["accuracy"]
    assert apart_.ordinal < 0 and apart_.kappa is not None and apart_.kappa < 0
    three = Found(*rated(tmp_path / "three", ballot(), by_model, worse, by_model)).agreement()["accuracy"]
    assert three.kappa is None and 0 < three.interval < 1
    assert Found(*rated(tmp_path / "one", ballot(), by_model)).agreement() == {}


def early(line: Line, of: Answer, name: str) -> int:
    """The answer that stands first is better."""
    return 4 if line.shown == 1 else 3


def test_what_stands_first_is_set_beside_the_others(tmp_path: Path) -> None:
    found, files = rated(tmp_path, ballot(), early, by_model)
    biased = Found(found, files[:1]).placed()
    assert biased and (biased.count, biased.win, biased.tie, biased.difference) == (8, 8, 0, 1.0)
    assert biased.rate == 1.0 and biased.rate_interval == wilson(8, 8) and biased.p == 2 / 2**8
    both = Found(found, files).placed()
    assert both and both.count == 16
    assert Found(*rated(tmp_path / "alone", ballot(models=1), by_model)).placed() is None


def test_nobody_knows_what_stood_first_in_a_sorted_file(tmp_path: Path) -> None:
    found, files = rated(tmp_path, ballot(), early)
    page = (book := load_workbook(files[0].returned.file))["评分"]
    rows = sorted(page.iter_rows(min_row=2, values_only=True), key=lambda row: str(row[2]))
    for number, row in enumerate(rows, 2):
        for place, value in enumerate(row, 1):
            page.cell(number, place).value = value
    book.save(files[0].returned.file)
    whole = Found(found, [checked.check(returned.read(files[0].returned.file), found)])
    assert whole.placed() is None and whole.sorted_files == ["rate-1.xlsx"] and {*whole.table(False)["shown"]} == {None}


def record(found: Ballot, files: Sequence[Filled], texts: bool = True) -> tuple[MemoryRun, Any]:
    run = MemoryRun()
    return run, imported.record(imported.Ready(found, tuple(files), EXPORTED), texts, run)


def test_scores_land_on_the_checkpoints_and_the_rows(tmp_path: Path) -> None:
    run, result = record(*rated(tmp_path, ballot(), by_model, worse))
    kept = {(key, owner, data): (value, step) for key, value, step, owner, data in run.kept_metrics}
    assert kept["score/human/overall", "checkpoint-0", "evaluation"] == (pytest.approx(4.0), 0)
    assert kept["score/human/overall", "checkpoint-1", "evaluation"] == (pytest.approx(2.0), 1)
    assert ("score/human/accuracy_low", "checkpoint-1", "evaluation") in kept
    assert [each.name for each in run.used] == ["checkpoint-0", "checkpoint-1"]
    (data,) = run.inputs
    assert (data.name, data.digests["canonical"]) == ("sales_eval", "c" * 64)
    table = run.artifacts["human/ratings.json"]
    assert {len(values) for values in table.values()} == {2 * (16 + 2)} and "answer" in table and sum(table["repeated"]) == 4
    assert result.values["wins"][0]["rate"] == 1.0 and run.kept_tags["human.imported"] == "h0123456789ab"
    run, _ = record(*rated(tmp_path / "bare", ballot(), by_model), texts=False)
    assert not {"prompt", "answer", "comment"} & {*run.artifacts["human/ratings.json"]}


def test_a_rater_who_does_not_read_is_named_and_left_out_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, (good, bad) = sheets(ballot(), tmp_path, raters=2)
    fill(good, found, by_model)
    fill(bad, found, turned)
    book = load_workbook(bad)
    row = next(row for row in book["评分"].iter_rows(min_row=2) if found.lines[row[0].value].wanted)
    row[3].value = 6 - row[3].value if row[3].value != 3 else 1
    book.save(bad)
    monkeypatch.setattr(imported, "here", lambda: None)
    monkeypatch.setattr(imported, "found_run", lambda store, evaluation: EXPORTED)
    monkeypatch.setattr(imported, "recorded_text", lambda *_: found.as_json())

    def taken(files: list[Path], drop: bool) -> Any:
        return imported.record(imported.ready(files, False, drop), True, MemoryRun())

    result = taken([good, bad], False)
    assert [(each["failed"], each["counted"]) for each in result.values["raters"]] == [(False, True), (True, True)]
    assert any(
        f"check failed: rate-2.xlsx, sheet 评分, cell {row[3].coordinate}" in str(each) for each in result.shown[-1].rows
    )
    result = taken([good, bad], True)
    assert [(each["failed"], each["counted"]) for each in result.values["raters"]] == [(False, True), (True, False)]
    assert result.values["scores"]["models:/sales@challenger"]["human/overall"]["value"] == 4.5
    with pytest.raises(UserError, match=f"every rater failed the checks .*cell {row[3].coordinate}"):
        taken([bad], True)
    with pytest.raises(UserError, match="is the file of rater 1, as is"):
        taken([good, good], False)


def test_what_cannot_be_taken_is_refused_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    found, (file,) = sheets(ballot(), tmp_path)
    fill(file, found, lambda line, of, name: 9 if (of.place, of.model, name) == (0, 0, "accuracy") else 3)
    monkeypatch.setattr(imported, "here", lambda: None)
    monkeypatch.setattr(imported, "found_run", lambda store, evaluation: EXPORTED)
    monkeypatch.setattr(imported, "recorded_text", lambda *_: found.as_json())
    with pytest.raises(UserError, match=r"op.files: .* rate-1.xlsx, sheet 评分, cell D\d+ is '9'.*op.leave_out=true"):
        imported.ready([file], False, False)
    ready = imported.ready([file], True, False)
    assert "left out" in capfd.readouterr().err
    assert len(Found(ready.ballot, ready.filled).values("accuracy", 0)) == 7


def test_checkpoints_of_one_name_are_told_apart() -> None:
    models = [
        dataclasses.replace(each, checkpoint=dataclasses.replace(each.checkpoint, name="last")) for each in ballot().models
    ]
    assert [each.checkpoint.name for each in apart([*models, Model("server", None)]) if each.checkpoint] == ["last", "last-2"]


def test_a_file_whose_name_tells_or_that_is_there_is_refused(tmp_path: Path) -> None:
    def wanted(name: str, raters: int = 1) -> Wanted:
        return Wanted(tmp_path / name, raters, ("accuracy",), Lang.zh, 2, 3)

    (tmp_path / "rate-2.xlsx").write_bytes(b"filled in")
    refuse(wanted("rate.xlsx"), ["tiny"])
    for name, raters, models, said in (
        ("rate.xlsx", 2, ["tiny"], "rate-2.xlsx: is there already, maybe filled in"),
        ("tiny-rate.csv", 1, ["tiny"], "has 'tiny' in its name"),
        ("Sales.xlsx", 1, ["models:/sales@challenger"], "has 'sales' in its name"),
        ("rate.ods", 1, ["tiny"], "end it in .xlsx or .csv"),
        ("rate-2.xlsx/rate.xlsx", 1, ["tiny"], "is a file, not a folder"),
    ):
        with pytest.raises(UserError, match=said):
            refuse(wanted(name, raters), models)


def test_raters_may_have_both_forms(tmp_path: Path) -> None:
    wanted = Wanted(tmp_path / "rate.xlsx", 2, ("accuracy",), Lang.zh, 2, 3, forms=("xlsx", "csv"))
    assert [[each.name for each in some] for some in wanted.files] == [
        ["rate-1.xlsx", "rate-1.csv"],
        ["rate-2.xlsx", "rate-2.csv"],
    ]
    refuse(wanted, ["tiny"])
    with pytest.raises(UserError, match=r"op.file: is 'rate.xlsx'; op.format=\[csv\] has other endings"):
        refuse(dataclasses.replace(wanted, forms=("csv",)), ["tiny"])
    (tmp_path / "rate-2.csv").write_bytes(b"filled in")
    with pytest.raises(UserError, match=r"rate-2.csv: is there already, maybe filled in"):
        refuse(wanted, ["tiny"])


@pytest.mark.parametrize("name", ["rater", "编号", "Answer", "Overall", "评语（可不填）"])
def test_a_dimension_is_no_other_column(name: str) -> None:
    with pytest.raises(UserError, match=r"op.dimensions: names .*, which is another column"):
        HumanExport(dimensions=["quality", name])


def test_answers_that_name_their_model_are_counted() -> None:
    said = [(0, Sample(place, "?", text)) for place, text in enumerate(("我是 SmolLM2。", "smollm2x", "你好"))]
    assert _telling(said, [Model("smollm2", None)]) == 1
    assert _telling(said, []) == 0


def test_nothing_in_the_summary_is_no_number(tmp_path: Path) -> None:
    run, _ = record(*rated(tmp_path, ballot(2), lambda *_: 3, lambda *_: 3))
    assert "NaN" not in run.artifacts["human/summary.json"]
    assert not any(math.isnan(value) for _, value, *_ in run.kept_metrics)


def side(name: str, scores: dict[str, list[float]], lengths: list[int] | None = None) -> Ratings:
    """What somebody says of the answers to rows 1, 2, 3, …"""
    by = {name: {(row, "mark"): value for row, value in enumerate(values, 1)} for name, values in scores.items()}
    return Ratings(name, [name], by, {(row, "mark"): length for row, length in enumerate(lengths or [], 1)})


def test_a_judge_is_set_beside_people_on_what_both_rated(monkeypatch: pytest.MonkeyPatch, jsonl: Any) -> None:
    lengths = [10, 20, 30, 40, 50, 60]
    people = side("people", {"accuracy": [1, 2, 3, 4, 5], "overall": [3, 1, 5, 2, 4]}, lengths[:5])
    people.sheets = [{1: [(1, 4.0), (2, 3.0)], 2: [(2, 5.0), (1, 5.0)], 3: [(2, 1.0)]}]
    judge = side("judge", {"accuracy": [2, 3, 4, 5, 5, 5], "style": [1] * 6, "overall": [1, 2, 3, 4, 5, 5]}, lengths)
    other = side("other", {"accuracy": [2, 3, 4, 5, 5, 4], "overall": [1, 2, 3, 4, 5, 5]}, lengths)
    pairs = side("pairs", {"flip": [1, 0, 0, 0], "win": [0, 1, 1, 1], "overall": [0.5, 1, 1, 1]})
    monkeypatch.setattr(recorded, "people", lambda store, raw: people)
    monkeypatch.setattr(recorded, "judges", lambda store, raw: [judge, other, pairs])
    request = Eval(dataset=str(jsonl([{"prompt": "?", "reference": "!"}])))
    found = calibration.calibrated(request, None)  # type: ignore[arg-type]
    assert [(each.second, each.dimension, each.found.count) for each in found.agreement] == [
        ("judge", "accuracy", 5), ("judge", "overall", 5), ("other", "accuracy", 5), ("other", "overall", 5)
    ]  # fmt: skip
    accuracy = found.agreement[0].found
    assert accuracy.difference.value == pytest.approx(0.8) and accuracy.spearman.value == pytest.approx(0.9747, abs=1e-4)
    assert {(each.first, each.second, each.dimension): each.found.difference.value for each in found.drift} == {
        ("judge", "other", "accuracy"): pytest.approx(-1 / 6), ("judge", "other", "overall"): 0.0
    }  # fmt: skip
    assert [round(each.found.value, 2) for each in found.length] == [1.0, 0.3, 1.0, 0.3]
    assert found.first and (found.first.count, found.first.win, found.first.difference) == (2, 1, 0.5)
    (flips,) = found.flips
    assert (flips.found.value, flips.found.interval) == (0.25, wilson(1, 4))
    run = MemoryRun()
    result = calibration.record(found, run)
    assert "NaN" not in run.artifacts["calibration.json"] and len(result.shown) == 5
    kept = {key: value for key, value, *_ in run.kept_metrics}
    assert kept["calibrate/judge/accuracy/difference"] == pytest.approx(0.8)
    assert kept["calibrate/judge/accuracy/kappa_low"] <= kept["calibrate/judge/accuracy/kappa"]


def test_there_must_be_something_to_compare(monkeypatch: pytest.MonkeyPatch, jsonl: Any) -> None:
    request = Eval(dataset=str(jsonl([{"prompt": "?", "reference": "!"}])))
    one, away = (
        side("judge", {"overall": [1, 2]}, [1, 2]),
        Ratings("people", [], {"overall": {(9, "other"): 3.0}}, {(9, "other"): 1}),
    )
    for people, judges, said in (
        (Ratings("people"), [one], "no ratings of rows by people are in the record"),
        (away, [], "no judge has rated answers to rows"),
        (away, [one], "rated no answer to rows that is the same"),
    ):
        monkeypatch.setattr(recorded, "people", lambda store, raw, people=people: people)
        monkeypatch.setattr(recorded, "judges", lambda store, raw, judges=judges: judges)
        with pytest.raises(UserError, match=said):
            calibration.calibrated(request, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="dataset: names no rows"):
        calibration.calibrated(Eval(), None)  # type: ignore[arg-type]


def test_the_output_of_an_export_is_its_file() -> None:
    assert STAGE.arrange(["op=human_export", "output=a/rate.XLSX"]) == ["op=human_export", "op.file=a/rate.XLSX"]
    assert STAGE.arrange(["op=human_export", "models=[A,B]", "output=run"]) == ["op=human_export", "models=[A,B]", "output=run"]
    assert STAGE.arrange(["op=score", "output=rate.xlsx"]) == ["op=score", "output=rate.xlsx"]
