"""A report as a workbook: one sheet a table, one row a sample, numbers as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from mlops_llm.errors import need
from mlops_llm.eval import shown
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.people.cells import LONGEST, escaped, units
from mlops_llm.eval.report import chinese, sheets
from mlops_llm.eval.report.appendix import appendix
from mlops_llm.eval.report.chapters import Report
from mlops_llm.eval.report.document import Facts
from mlops_llm.eval.report.naming import kind_of, label

_REFUSED = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no cell can hold."""
_FORBIDDEN = re.compile(r"[\[\]:*?/\\\x00-\x1f\ud800-\udfff\ufffe\uffff]")
"""What no sheet's name can hold."""
_WIDTHS = (9, 60)


@dataclass
class _Lost:
    """What could not be written as it is."""

    characters: int = 0
    cut: int = 0


def check() -> None:
    """See that a workbook can be made here.

    Raises:
        UserError: openpyxl is not installed.
    """
    need("openpyxl", "report")


def xlsx(about: Report) -> bytes:
    """The workbook. A text that looks like a formula stays text; what a cell cannot hold is left out and counted."""
    from openpyxl import Workbook

    book, lost, outcome, lang, found = Workbook(write_only=True), _Lost(), about.outcome, about.lang, about.found
    names = set[str]()

    def sheet(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        _sheet(book, _name(title, names), columns, list(rows), lost)

    said = about.words
    kinds = {
        lang("主要发现", "Findings"): said.findings,
        lang("建议", "Advice"): said.advice,
        lang("优点", "Strengths"): said.strengths,
        lang("问题", "Problems"): said.problems,
        lang("对比", "Comparison"): said.comparison,
        lang("须知", "To know"): [chinese.warning(each, lang) for each in outcome.warnings],
    }
    totals = [(lang("样本", "Samples"), len(outcome.samples)), (lang("成功", "Succeeded"), outcome.succeeded)]
    totals += [(lang("失败", "Failed"), outcome.failures.total())]
    rows = [*totals, *((kind, each) for kind, several in kinds.items() for each in several)]
    sheet(lang("概述", "Summary"), ["", outcome.title], rows)
    sheet(lang("得分", "Scores"), *_scores(about))
    table = shown.columns(outcome) if found["texts"] else {
        key: values for key, values in shown.columns(outcome).items() if key not in ("prompt", "answer")
    }  # fmt: skip
    if outcome.samples:
        names_of = [_column(each, outcome, lang) for each in table]
        sheet(lang("样本", "Samples"), names_of, zip(*table.values(), strict=True))
    if outcome.failures:
        columns = [lang("类别", "Class"), lang("次数", "Times")]
        failed = [(kind_of(kind, lang), times) for kind, times in outcome.failures.most_common()]
        sheet(lang("失败", "Failures"), columns, failed)
    if outcome.groups:
        of = dict.fromkeys(name for each in outcome.groups for name in each.scores)
        columns = [chinese.head(each, lang) for each in ("key", "value", "items")]
        grouped = [[each.key, each.value, each.count, *(each.scores.get(name) for name in of)] for each in outcome.groups]
        sheet(lang("分组", "Groups"), [*columns, *(label(name, outcome) for name in of)], grouped)
    for grid in outcome.tables.values():
        sheet(chinese.table(grid.title, lang), [chinese.head(str(each), lang) for each in grid.columns], grid.rows)
    for each in (*sheets.people(about), *sheets.comparison(about)):
        sheet(*each)
    parts: list[tuple[Any, ...]] = [
        (section.title, *row)
        for section in appendix(found, lang).sections
        for part in section.parts
        if isinstance(part, Facts)
        for row in part.rows
    ]
    if lost.characters or lost.cut:
        parts.append((lang("本文件", "This file"), lang("去掉的控制字符", "control characters left out"), lost.characters))
        parts.append((lang("本文件", "This file"), lang("截断的单元格", "cells that were cut"), lost.cut))
    sheet(lang("附录", "Appendix"), ["", lang("名称", "Name"), lang("值", "Value")], parts)
    written = BytesIO()
    book.save(written)
    return written.getvalue()


def _scores(about: Report) -> tuple[list[str], list[list[Any]]]:
    lang = about.lang
    columns = [
        lang("得分", "Score"), lang("值", "Value"), lang("区间下限", "Low"), lang("区间上限", "High"), lang("样本", "Items"),
        lang("满分", "Largest"), lang("仅成功", "Answered only"), lang("训练中见过", "Seen in training"),
        lang("其余", "On the rest"), lang("计算方式", "How it is counted"),
    ]  # fmt: skip
    rows = [
        [
            label(each.name, about.outcome), each.value, *(each.interval or (None, None)), each.count, each.most,
            each.answered, each.seen.share if each.seen else None, each.seen.rest if each.seen else None, each.signature,
        ]
        for each in about.outcome.scores
    ]  # fmt: skip
    return columns, rows


_COLUMNS = {
    "row": "行", "task": "任务", "prompt": "问题", "asked": "所问", "answer": "回答", "reference": "参考", "label": "类别",
    "comment": "评语", "failure": "失败", "cause": "原因", "flags": "标记", "seen in training": "训练中见过", "seconds": "秒",
    "tokens": "词元",
}  # fmt: skip


def _column(name: str, outcome: Outcome, lang: Lang) -> str:
    if name.startswith(shown.JUDGE):
        return label(name, outcome)
    return lang(_COLUMNS.get(name, name), name)


def _sheet(book: Any, name: str, columns: Sequence[str], rows: list[Sequence[Any]], lost: _Lost) -> None:
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter

    sheet = book.create_sheet(name)
    sheet.freeze_panes = "A2"
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{len(rows) + 1}"
    for place, column in enumerate(columns):
        longest = max((len(str(row[place])) for row in rows[:200]), default=0)
        width = min(max(longest, len(column) * 2, _WIDTHS[0]), _WIDTHS[1]) + 2
        sheet.column_dimensions[get_column_letter(place + 1)].width = width
    bold, wrapped = Font(bold=True), Alignment(wrap_text=True, vertical="top")
    head = [_cell(sheet, column, lost) for column in columns]
    for each in head:
        if each is not None:
            each.font = bold
    sheet.append(head)
    for row in rows:
        cells = [_cell(sheet, value, lost) for value in row]
        for each in cells:
            if getattr(each, "data_type", "n") == "s":
                each.alignment = wrapped
        sheet.append(cells)


def _cell(sheet: Any, value: Any, lost: _Lost) -> Any:
    """A cell: numbers as they are, all else as text that is never a formula."""
    from openpyxl.cell import WriteOnlyCell

    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")):
        return value
    said, count = _REFUSED.subn("", str(value))
    lost.characters += count
    if units(said) > LONGEST:
        lost.cut += 1
        said = said.encode("utf-16-le")[: 2 * LONGEST - 2].decode("utf-16-le", "ignore") + "…"
    cell = WriteOnlyCell(sheet, value=escaped(said))
    if said[:1] in ("=", "+", "-", "@"):
        cell.data_type, cell.quotePrefix = "s", True
    return cell


def _name(title: str, taken: set[str]) -> str:
    """A sheet's name: at most 31 characters, of those that Excel takes, each once."""
    plain = _FORBIDDEN.sub(" ", title).strip().strip("'")[:28] or "table"
    name, number = plain, 2
    while name.casefold() in taken:
        name, number = f"{plain} {number}", number + 1
    taken.add(name.casefold())
    return name
