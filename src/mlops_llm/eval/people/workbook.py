"""A rater's file: a workbook, or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mlops_llm import files
from mlops_llm.errors import UserError, first_line, need
from mlops_llm.eval.people.ballot import Line
from mlops_llm.eval.people.cells import FORMULA, escaped, lines, of_csv, width
from mlops_llm.eval.people.words import LEAST, MOST, Words

HIDDEN = "_meta"
"""Sheet with the evaluation's id and the marks of its rows."""
ENDINGS = (".xlsx", ".csv")
_WIDTHS = {"id": 22, "prompt": 40, "answer": 66, "score": 9, "comment": 30}
_GUIDE = (20, 110)
_LINE, _TALLEST = 16.5, 409.0
"""Points of a line of text, and of the highest row that there is (Microsoft, Excel specifications and limits)."""
_HEAD = "FFDDE6F0"


@dataclass(frozen=True)
class Sheet:
    """What one rater is shown."""

    path: Path
    evaluation: str
    rater: int
    dimensions: Sequence[str]
    lines: Sequence[Line]
    texts: Sequence[tuple[str, str]]
    """Prompt and answer of each line, as cells can hold them."""


def write(sheets: Sequence[Sheet], words: Words) -> None:
    """Write the files: all or none.

    Raises:
        UserError: a folder cannot be written, or the disk is full.
    """
    if any(each.path.suffix.lower() == ".xlsx" for each in sheets):
        need("openpyxl", "report")
    try:
        with ExitStack() as drafts:
            for each in sheets:
                draft = drafts.enter_context(files.replace(each.path))
                (_csv if each.path.suffix.lower() == ".csv" else _xlsx)(draft, each, words)
    except OSError as error:
        remedy = "make room on the disk" if files.is_disk_full(error) else "choose another op.file"
        raise UserError(f"cannot be written ({first_line(error)})", str(sheets[0].path), remedy) from error


def headings(sheet: Sheet, words: Words) -> list[str]:
    """The first row."""
    return [words.id, words.prompt, words.answer, *map(words.label, sheet.dimensions), words.comment]


def _csv(path: Path, sheet: Sheet, words: Words) -> None:
    # Excel takes a CSV file for Unicode only where it begins with the byte order mark.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(headings(sheet, words))
        empty = [""] * (len(sheet.dimensions) + 1)
        for line, texts in zip(sheet.lines, sheet.texts, strict=True):
            rows.writerow([line.id, *map(of_csv, texts), *empty])


def _xlsx(path: Path, sheet: Sheet, words: Words) -> None:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    book.properties.creator = ""
    try:
        _guide(book.create_sheet(words.guide), sheet, words)
        _ratings(book.create_sheet(words.rating), sheet, words)
        hidden = book.create_sheet(HIDDEN)
        hidden.sheet_state = "hidden"
        for row in _facts(sheet):
            hidden.append(row)
        book.active = 1
        whole = io.BytesIO()  # a zip file on a full disk would complain once more when Python throws it away
        book.save(whole)
    except BaseException:
        # Pages that are still open would complain when Python throws them away.
        for page in book.worksheets:
            with suppress(Exception):
                page.close()
        raise
    path.write_bytes(whole.getbuffer())


def _facts(sheet: Sheet) -> Iterator[list[Any]]:
    yield ["evaluation", sheet.evaluation]
    yield ["rater", sheet.rater]
    for line in sheet.lines:
        yield [line.id, line.prompt_mark, line.answer_mark]


def _on_paper(page: Any) -> None:
    """As wide as a sheet of paper when somebody prints it."""
    from openpyxl.worksheet.properties import PageSetupProperties

    page.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    page.page_setup.orientation, page.page_setup.fitToHeight = "landscape", 0
    page.print_options.gridLines = True


def _guide(page: Any, sheet: Sheet, words: Words) -> None:
    _on_paper(page)
    page.column_dimensions["A"].width, page.column_dimensions["B"].width = _GUIDE
    thanks, *rules = words.guide_of({each.kind for each in sheet.lines})
    told = [["", thanks], [], *([f"{number}", text] for number, text in enumerate(rules, 1)), []]
    told += [*([f"{score}", text] for score, text in enumerate(words.scale, LEAST)), []]
    told += [[words.label(each), words.meanings.get(each, "")] for each in sheet.dimensions]
    _fill(page, told, _GUIDE)


def _ratings(page: Any, sheet: Sheet, words: Words) -> None:
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    _on_paper(page)
    scores = [max(_WIDTHS["score"], width(words.label(each)) + 3) for each in sheet.dimensions]
    widths = [_WIDTHS["id"], _WIDTHS["prompt"], _WIDTHS["answer"], *scores, _WIDTHS["comment"]]
    for number, wide in enumerate(widths, 1):
        page.column_dimensions[get_column_letter(number)].width = wide
    page.freeze_panes = "B2"
    last, end = get_column_letter(3 + len(sheet.dimensions)), max(2, len(sheet.lines) + 1)
    page.auto_filter.ref = f"A1:{get_column_letter(len(widths))}{end}"
    choices = ",".join(str(each) for each in range(LEAST, MOST + 1))
    rule = DataValidation(type="list", formula1=f'"{choices}"', allow_blank=True, showErrorMessage=True)
    rule.errorTitle, rule.error = words.refused
    rule.add(f"D2:{last}{end}")
    page.data_validations.append(rule)
    rows = ([line.id, *texts] for line, texts in zip(sheet.lines, sheet.texts, strict=True))
    _fill(page, chain([headings(sheet, words)], rows), widths)


def _fill(page: Any, rows: Iterable[Sequence[str]], widths: Sequence[float]) -> None:
    """Rows of texts, the first one bold, each as high as it needs: LibreOffice shows one line where the file says nothing."""
    for number, texts in enumerate(rows, 1):
        tall = max((lines(text, wide) for text, wide in zip(texts, widths, strict=False)), default=1)
        page.row_dimensions[number].height = min(_TALLEST, _LINE * tall)
        page.append(_texts(page, texts, bold=number == 1))


def _texts(page: Any, texts: Iterable[str], *, bold: bool = False) -> list[Any]:
    """Cells that hold texts, whatever these look like."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Alignment, Font, PatternFill

    made = []
    for text in texts:
        cell = WriteOnlyCell(page, value=escaped(text))
        cell.data_type = "s"
        cell.alignment = Alignment(wrap_text=True, vertical="top")
        if text.startswith(FORMULA):
            cell.quotePrefix = True  # it stays a text when somebody edits it
        if bold:
            cell.font, cell.fill = Font(name="Calibri", bold=True), PatternFill("solid", fgColor=_HEAD)
        made.append(cell)
    return made
