"""What comes back from raters: every cell is checked, and what cannot be taken is named."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from mlops_llm.errors import UserError
from mlops_llm.eval.people import checked, returned
from mlops_llm.eval.people.ballot import Answer, Ballot, Kind, Line
from mlops_llm.eval.people.checked import Filled
from tests.ballots import ballot, by_model, fill, sheets

Edit = Callable[[Any], None]


def edited(tmp_path: Path, edit: Edit, found: Ballot, path: Path) -> Filled:
    """A file that was filled in and then edited."""
    fill(path, found, by_model)
    book = load_workbook(path)
    edit(book)
    book.save(path)
    return checked.check(returned.read(path), found)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Ballot, Path]:
    found, (path,) = sheets(ballot(), tmp_path)
    return found, path


@pytest.mark.parametrize(
    ("cell", "value", "said"),
    [
        ("D3", 7, "cell D3: is '7', not a whole number from 1 to 5"),
        ("D3", 0, "cell D3: is '0'"),
        ("E4", 3.5, "cell E4: is '3.5'"),
        ("E4", "good", "cell E4: is 'good'"),
        ("E4", True, "cell E4: is 'True'"),
        ("C5", "其他", "cell C5: the answer was altered"),
        ("B6", "其他", "cell B6: the prompt was altered"),
        ("A6", "x", "cell A6: 'x' is no id of a row"),
        ("A6", "hffffffffffff-1-00001", "is of another evaluation"),
        ("A6", None, "cell A6: is empty, so that nobody knows which row this is"),
    ],
)
def test_what_cannot_be_taken_is_named_with_its_cell(made, tmp_path, cell, value, said):
    def edit(book: Any) -> None:
        book["评分"][cell] = value

    one = edited(tmp_path, edit, *made)
    (fault,) = one.faults
    assert said in f"{fault.where}: {fault.what}" and fault.where.startswith("rate-1.xlsx, sheet 评分, cell ")


@pytest.mark.parametrize("value", ["4", " 4 ", "４", "4.0", 4.0])
def test_a_score_counts_in_any_form(made, tmp_path, value):
    def edit(book: Any) -> None:
        book["评分"]["D3"] = value

    one = edited(tmp_path, edit, *made)
    assert not one.faults and next(each for each in one.rated.values() if each.row == 3).scores["accuracy"] == 4


def test_an_empty_score_is_missing_and_no_fault(made, tmp_path):
    def edit(book: Any) -> None:
        book["评分"]["D3"] = None
        book["评分"].delete_rows(10)

    one = edited(tmp_path, edit, *made)
    assert one.empty == ["rate-1.xlsx, sheet 评分, cell D3"] and one.missing == 1 and not one.faults


def test_an_altered_row_is_in_the_file_all_the_same(made, tmp_path):
    def edit(book: Any) -> None:
        book["评分"]["C5"] = "其他"

    one = edited(tmp_path, edit, *made)
    assert len(one.faults) == 1 and one.missing == 0


@pytest.mark.parametrize(("until", "fails"), [(99, True), (8, False)])
def test_an_empty_check_fails_once_the_rest_is_rated(made, tmp_path, until, fails):
    found, path = made

    def edit(book: Any) -> None:
        for number, row in enumerate(book["评分"].iter_rows(min_row=2)):
            if number > until or found.lines[row[0].value].kind is Kind.check:
                row[3].value = row[4].value = None

    one = edited(tmp_path, edit, found, path)
    assert bool(one.failed_checks()) == one.is_careless == fails
    if fails:
        assert len(one.failed_checks()) == 4


def test_sheets_of_ones_own_are_passed_over(made, tmp_path):
    def edit(book: Any) -> None:
        own = book.create_sheet("我的笔记", 0)
        for row in (["编号", "备注"], ["A-1", "见下"]):
            own.append(row)
        copy = book.create_sheet("备份")
        for row in list(book["评分"].iter_rows(values_only=True))[:5]:
            copy.append(row)

    one = edited(tmp_path, edit, *made)
    assert not one.faults and not one.missing and one.returned.sheet == "评分"
    assert one.returned.others == ("备份",)


def test_rows_and_columns_may_stand_in_any_order_and_more_may_be_there(made, tmp_path):
    def edit(book: Any) -> None:
        page = book["评分"]
        rows = [[cell.value for cell in row] for row in page]
        page.delete_rows(1, page.max_row)
        page.append(["客服评测，第二组"])
        head, *rest = [[row[place] for place in (5, 3, 0, 4, 2, 1)] + [f"note {at}"] for at, row in enumerate(rows)]
        for row in [head, *reversed(rest)]:
            page.append(row)
        page.append([None, None, None, None, None, None, "my own note"])
        book.move_sheet("评分", 1)

    found, path = made
    one = edited(tmp_path, edit, found, path)
    assert not one.faults and not one.missing
    for each in one.rated.values():
        if each.line.kind is not Kind.check:
            assert each.scores["accuracy"] == by_model(each.line, found.answers[each.line.answer], "")


def test_a_row_that_stands_twice_is_taken_once(made, tmp_path):
    def edit(book: Any) -> None:
        page = book["评分"]
        page.append([cell.value for cell in page[2]])

    (fault,) = edited(tmp_path, edit, *made).faults
    assert "is the same row as rate-1.xlsx, sheet 评分, cell A2" in fault.what


def test_a_row_of_another_rater_is_none_of_this_file(tmp_path):
    found, (first, second) = sheets(ballot(), tmp_path, raters=2)
    fill(second, found, by_model)
    other = [cell.value for cell in load_workbook(second)["评分"][2]]

    def edit(book: Any) -> None:
        book["评分"].append(other)

    (fault,) = edited(tmp_path, edit, found, first).faults
    assert "is a row of rater 2 in the file of rater 1" in fault.what


def test_csv_comes_back_from_any_program(tmp_path):
    found, (path,) = sheets(ballot(), tmp_path, ending=".csv")
    rows = list(csv.reader(path.open(encoding="utf-8-sig", newline="")))
    for row in rows[1:]:
        line = found.lines[row[0]]
        row[3:5] = ["3", str(line.wanted or 4)]
    for encoding, separator in (("utf-8", ","), ("gb18030", ","), ("utf-8-sig", ";")):
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=separator).writerows(rows)
        one = checked.check(returned.read(path), found)
        assert not one.faults and len(one.rated) == len(found.lines), encoding
    rows[4][3] = "9"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    (fault,) = checked.check(returned.read(path), found).faults
    assert (fault.where, fault.what) == ("rate-1.csv, cell D5", "is '9', not a whole number from 1 to 5")


def careless(line: Line, of: Answer, name: str) -> int:
    return 5 if line.kind is Kind.repeat else 1


def test_who_contradicts_himself_or_does_not_read_is_known(made, tmp_path):
    found, path = made
    one = checked.check(returned.read(fill(path, found, careless, tmp_path / "a.xlsx")), found)
    assert len(one.contradictions()) == 2 and not one.failed_checks() and one.is_careless
    assert all(re.fullmatch(r"a.xlsx, sheet 评分, cell [DE]\d+ and a.xlsx, sheet 评分, cell [DE]\d+", cell)
               for cells in one.contradictions().values() for cell in cells)  # fmt: skip

    def edit(book: Any) -> None:
        page = book["评分"]
        row = next(row for row in page.iter_rows(min_row=2) if found.lines[row[0].value].kind is Kind.check)
        row[3].value = 1 if row[3].value != 1 else 2

    two = edited(tmp_path, edit, found, path)
    assert len(two.failed_checks()) == 1 and two.is_careless and not two.contradictions()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"no zip", "cannot be read (it is no workbook)"),
        ("a.xlsx", b"PK\x05\x06" + b"\0" * 18, "cannot be read"),
        ("a.ods", b"x", "is neither .xlsx nor .csv"),
        ("a.csv", b"\xff\xfe\xff\xff", "is neither UTF-8 nor GB 18030"),
        ("a.csv", b"", "has no sheet with a column 'id'"),
        ("a.csv", b"id,prompt,answer\n", "no row has its id any more"),
        ("a.csv", b"id,prompt,answer,id\n", "has two columns 'id'"),
        ("a.csv", b"id,prompt,answer\nh0123456789ab-1-00001,a,b\n", "has no column '准确性' or 'accuracy' any more"),
        ("a.csv", b"id,prompt,answer\nhffffffffffff-1-00001,a,b\n", "is of evaluation hffffffffffff, not of h0123456789ab"),
    ],
)
def test_a_file_beyond_repair_is_refused_in_one_line(tmp_path, name, content, said):
    found, _ = sheets(ballot(), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        checked.check(returned.read(tmp_path / name), found)
    assert said in str(refused.value) and name in str(refused.value) and "\n" not in str(refused.value)


def test_a_sheet_whose_columns_are_gone_is_refused(made, tmp_path):
    def edit(book: Any) -> None:
        book["评分"].delete_cols(1)

    with pytest.raises(UserError, match="has no sheet with a column 'id' or '编号'"):
        edited(tmp_path, edit, *made)


def test_a_file_that_nobody_filled_in_is_refused(made):
    found, path = made
    with pytest.raises(UserError, match=r"rate-1.xlsx: holds no score; fill it in"):
        checked.check(returned.read(path), found)
