"""Raters' files: blind, whole, and safe to open in any program."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import zipfile
from pathlib import Path

import pytest
from openpyxl import load_workbook

from mlops_llm.errors import UserError
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.people import ballot as ballots
from mlops_llm.eval.people import checked, returned, workbook
from mlops_llm.eval.people.ballot import Kind
from mlops_llm.eval.people.cells import LONGEST, Fitted, mark, units
from mlops_llm.eval.people.words import WORDS
from mlops_llm.eval.people.workbook import HIDDEN
from tests.ballots import DIMENSIONS, MODELS, ballot, by_model, fill, sheets


def test_nothing_in_the_file_says_whose_an_answer_is(tmp_path: Path) -> None:
    _, (path,) = sheets(ballot(), tmp_path)
    words = [word for ref in MODELS for word in re.split(r"[/@:]+", ref) if len(word) > 4] + ["digest", "/model", "sales_eval"]
    with zipfile.ZipFile(path) as parts:
        for name in parts.namelist():
            text = parts.read(name).decode("utf-8", "replace")
            assert [word for word in [*MODELS, *words] if word in text or word in name] == [], name
    book = load_workbook(path)
    assert not book.properties.creator and not book.properties.title and not book.properties.lastModifiedBy
    assert not list(book.defined_names)
    assert all(cell.comment is None for page in book for row in page for cell in row)


def test_the_order_of_the_models_changes_from_row_to_row_and_from_rater_to_rater() -> None:
    found = ballot(40)
    orders = {}
    for rater in (1, 2):
        lines = ballots.lines(found, rater, 0, 0, 0)
        assert sorted(each.answer for each in lines) == list(range(80))
        models = [found.answers[each.answer].model for each in lines if each.shown == 1]
        assert 8 < sum(models) < 32
        assert all(
            found.answers[one.answer].place == found.answers[two.answer].place
            for one, two in zip(lines[::2], lines[1::2], strict=True)
        )
        orders[rater] = [each.answer for each in lines]
    assert orders[1] != orders[2]
    assert orders[1] == [each.answer for each in ballots.lines(found, 1, 0, 0, 0)]
    assert orders[1] != [each.answer for each in ballots.lines(found, 1, 1, 0, 0)]


def test_checks_and_repeats_lie_between_the_answers() -> None:
    lines = ballots.lines(ballot(20), 1, 0, 3, 4)
    kinds = [each.kind for each in lines]
    assert (kinds.count(Kind.answer), kinds.count(Kind.repeat), kinds.count(Kind.check)) == (40, 4, 3)
    for place, each in enumerate(lines):
        if each.kind is Kind.repeat:
            first = next(at for at, one in enumerate(lines) if one.kind is Kind.answer and one.answer == each.answer)
            assert place - first > 10
    for seed in range(20):
        wanted = [each.wanted for each in ballots.lines(ballot(20), 1, seed, 3, 4) if each.kind is Kind.check]
        assert len({*wanted}) == 3 and all(1 <= each <= 5 for each in wanted)
    assert [each.kind for each in ballots.lines(ballot(1, 1), 1, 0, 2, 3)].count(Kind.answer) == 1


def test_the_key_is_read_as_it_was_written(tmp_path: Path) -> None:
    found, _ = sheets(dataclasses.replace(ballot(), none=((3, 1),)), tmp_path, raters=2)
    assert ballots.read(found.as_json(), "key") == found
    for text in ("{}", "[]", "no json", json.dumps({"version": ballots._VERSION})):
        with pytest.raises(UserError, match="is no key"):
            ballots.read(text, "key")


def test_a_person_finds_instructions_lists_and_frozen_headings(tmp_path: Path) -> None:
    _, (path,) = sheets(ballot(), tmp_path)
    book = load_workbook(path)
    assert book.sheetnames == ["说明", "评分", HIDDEN] and book[HIDDEN].sheet_state == "hidden"
    page = book["评分"]
    assert [cell.value for cell in page[1]] == ["编号", "问题", "回答", "准确性", "流畅性", "评语（可不填）"]
    assert page.freeze_panes == "B2" and book.active.title == "评分"
    (rule,) = page.data_validations.dataValidation
    assert (rule.type, rule.formula1, str(rule.sqref)) == ("list", '"1,2,3,4,5"', f"D2:E{page.max_row}")
    assert page["C2"].alignment.wrap_text and page.column_dimensions["C"].width == 66
    assert any("1 到 5 分" in str(cell.value) for row in book["说明"] for cell in row)
    _, (path,) = sheets(ballot(), tmp_path / "en", lang=Lang.en)
    assert [cell.value for cell in load_workbook(path)["ratings"][1]][:5] == ["id", "prompt", "answer", *DIMENSIONS]


def test_a_row_is_as_high_as_its_answer(tmp_path: Path) -> None:
    texts = {0: ("问", "长" * 330), 1: ("Q", "one\ntwo\nthree"), 2: ("Q", "短"), 3: ("Q", "长" * 30_000)}
    found, (path,) = sheets(ballot(2), tmp_path, texts=texts, checks=0, repeats=0)
    page = load_workbook(path)["评分"]
    heights = {found.lines[page.cell(row, 1).value].answer: page.row_dimensions[row].height for row in range(2, 6)}
    assert heights[0] >= 10 * heights[2] and heights[1] == 3 * heights[2] and heights[3] == 409


@pytest.mark.parametrize("lang", Lang)
def test_a_person_is_told_of_what_is_there(tmp_path: Path, lang: Lang) -> None:
    def told(**how: int) -> str:
        _, (path,) = sheets(ballot(), tmp_path / str(how), lang=lang, **how)
        return " ".join(str(cell.value) for row in load_workbook(path).worksheets[0] for cell in row)

    words = WORDS[lang]
    assert words.twice in told() and words.attention in told()
    assert words.twice not in told(repeats=0) and words.attention in told(repeats=0)
    assert words.twice in told(checks=0) and words.attention not in told(checks=0)


HOSTILE = {
    0: ("=1+1", '=HYPERLINK("http://x","y")'),
    1: ("+1", "-1"),
    2: ("@SUM(A1)", "#N/A"),
    3: ("a\x00b\x07\x1b[31m \udc80 \uffff", "_x0041_ and _x005F_"),
    4: ("  blanks  \r\n\tline\r", "'=1"),
    5: ("长" * 40_000, "😀" * 20_000),
    6: ("12", "True"),
    7: ("中文，emoji 😀", "<b>&amp;"),
}


@pytest.mark.parametrize("ending", [".xlsx", ".csv"])
def test_any_text_comes_back_as_the_row_that_it_was(tmp_path: Path, ending: str) -> None:
    found, (path,) = sheets(ballot(4), tmp_path, ending=ending, texts=HOSTILE)
    table = returned.read(path)
    assert len(table.rows) == len(found.lines)
    one = checked.Filled(table, 1, DIMENSIONS)
    table = dataclasses.replace(table, columns=checked._columns(table, found))
    for row in table.rows:
        line = found.lines[str(table.value(row[1], "id"))]
        assert checked._is_unaltered(dataclasses.replace(one, returned=table), row, line), row
    if ending == ".xlsx":
        page = load_workbook(path)["评分"]
        cells = {cell.value: cell for row in page.iter_rows(min_row=2, max_col=3) for cell in row}
        assert {cell.data_type for cell in cells.values()} <= {"s", "inlineStr"}
        assert cells["=1+1"].quotePrefix and not cells["12"].quotePrefix
    else:
        assert path.read_bytes().startswith(b"\xef\xbb\xbf")
        with path.open(encoding="utf-8-sig", newline="") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_what_no_cell_can_hold_is_replaced_cut_and_counted() -> None:
    fitted = Fitted("…")
    assert fitted.text("a\x00b\x0bc\ud800") == "a\ufffdb\ufffdc\ufffd" and fitted.replaced == 3
    assert fitted.text("x" * LONGEST) == "x" * LONGEST and fitted.shortened == 0
    for long in ("长" * 40_000, "😀" * 16_384, "a" + "😀" * 20_000):
        assert units(fitted.text(long)) <= LONGEST and fitted.text(long).endswith("…")
    assert fitted.shortened == 6
    assert mark("a\tb\u2028c\xa0d") == mark("abcd")  # LibreOffice loses some of these in .ods
    assert mark("'=1") == mark("=1") and mark("a\r\nb ") == mark("a b") and mark("a") != mark("b")


def test_no_file_is_left_where_one_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = workbook._facts

    def full(sheet: workbook.Sheet):  # type: ignore[no-untyped-def]
        if sheet.rater == 2:
            raise OSError(28, "No space left on device")
        return written(sheet)

    monkeypatch.setattr(workbook, "_facts", full)
    with pytest.raises(UserError, match=r"No space left on device.*make room on the disk"):
        sheets(ballot(), tmp_path, raters=2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_person_filled_in_is_read(tmp_path: Path) -> None:
    found, (path,) = sheets(ballot(), tmp_path)
    one = checked.check(returned.read(fill(path, found, by_model)), found)
    assert not one.faults and not one.empty and not one.missing and not one.is_careless
    assert len(one.rated) == len(found.lines)
    for each in one.rated.values():
        if each.line.kind is not Kind.check:
            assert each.scores["accuracy"] == by_model(each.line, found.answers[each.line.answer], "")
