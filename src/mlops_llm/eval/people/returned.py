"""Files that raters send back, as tables: columns may stand in any order, others may have been added."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError, first_line, need
from mlops_llm.eval.people.ballot import known
from mlops_llm.eval.people.words import columns, plain
from mlops_llm.eval.people.workbook import ENDINGS, HIDDEN

_UNPACKED = 1 << 28
"""Bytes of an unpacked workbook: half a million answers take as many."""
_BLOCK = 1 << 20
_HEADS = 10
"""Rows at the top among which the headings are looked for: somebody may have put a title above them."""
Row = tuple[int, Sequence[Any]]
"""Number as the program shows it, and its values."""


@dataclass(frozen=True)
class Returned:
    """What stands in a rater's file."""

    file: Path
    sheet: str
    """Empty of CSV."""
    columns: dict[str, int]
    """`id`, `prompt`, `answer`, `comment` or a dimension -> place of the column."""
    rows: list[Row]
    others: tuple[str, ...] = ()
    """Further sheets with rows of an evaluation, which nobody reads."""

    def value(self, row: Sequence[Any], column: str) -> Any:
        """What stands in a column; None where the row ends before it, or there is no such column."""
        place = self.columns.get(column)
        return row[place] if place is not None and place < len(row) else None

    def where(self, number: int, column: str = "id") -> str:
        """File, sheet and cell."""
        place = self.columns[column]
        cell = f"{_letters(place)}{number}"
        return f"{self.file.name}, sheet {self.sheet}, cell {cell}" if self.sheet else f"{self.file.name}, cell {cell}"


def read(path: Path, most: int | None = None) -> Returned:
    """Read a file.

    Args:
        path: the file.
        most: rows that are looked at; None reads all.

    Raises:
        UserError: it is not there, no workbook, or edited so far that its columns cannot be told.
    """
    if not path.is_file():
        raise UserError("there is no such file", str(path), "check op.files")
    if path.suffix.lower() not in ENDINGS:
        raise UserError("is neither .xlsx nor .csv", str(path), "save it as .xlsx in the program that opened it")
    tables = _csv(path) if path.suffix.lower() == ".csv" else _xlsx(path, most)
    found = [(sheet, rows, *head) for sheet, rows in tables for head in _heads(rows)]
    if not found:
        what = "has no sheet with a column 'id' or '编号': its rows cannot be told apart"
        raise UserError(what, str(path), "take the file as it was exported, and fill it in anew")
    counts = [
        sum(place < len(row) and known(row[place]) is not None for _, row in rows[at + 1 :]) for _, rows, at, place in found
    ]
    sheet, rows, at, _ = found[counts.index(max(counts))]
    others = dict.fromkeys(one for (one, *_), count in zip(found, counts, strict=True) if count and one != sheet)
    return Returned(path, sheet, _placed(path, sheet, rows[at][1]), rows[at + 1 :], tuple(others))


def _heads(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Rows and columns of what may be the heading of the ids: people have titles above it, and sheets of their own with one."""
    ids = {heading for heading, name in columns(()).items() if name == "id"}
    return [(at, place) for at, (_, row) in enumerate(rows[:_HEADS]) for place, each in enumerate(row) if plain(each) in ids]


def _placed(path: Path, sheet: str, head: Sequence[Any]) -> dict[str, int]:
    """Heading -> place; what dimensions there are, only the key knows."""
    placed, fixed = dict[str, int](), columns(())
    for place, heading in enumerate(head):
        name = plain(heading)
        name = fixed.get(name, name)
        if name in placed and name:
            where = f"{path.name}{f', sheet {sheet}' if sheet else ''}"
            raise UserError(f"has two columns '{heading}'", where, "rename or remove the one that was added")
        placed[name] = place
    return placed


def _xlsx(path: Path, most: int | None) -> list[tuple[str, list[Row]]]:
    need("openpyxl", "report")
    from openpyxl import load_workbook

    try:
        _bear(path)
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            return [(page.title, _rows(page, most)) for page in book.worksheets if page.title != HIDDEN]
        finally:
            book.close()
    except (MemoryError, UserError):
        raise
    except Exception as error:  # what openpyxl raises of a broken file is of any type
        why = "it is no workbook" if isinstance(error, zipfile.BadZipFile) else first_line(error)
        remedy = "open it in a spreadsheet program and save it as .xlsx without a password, or fill in a new one"
        raise UserError(f"cannot be read ({why})", str(path), remedy) from error


def _bear(path: Path) -> None:
    """See that a workbook unpacks to what it says, and to no more than a person's may: openpyxl takes a member at once.

    Raises:
        UserError: it does not.
    """
    left = _UNPACKED
    with zipfile.ZipFile(path) as packed:
        for each in packed.infolist():
            said, each.file_size = each.file_size, sys.maxsize  # or reading would stop at what is said
            found = _unpacked(packed, each, left)
            left -= max(said, found)
            if left < 0:
                what = f"unpacks to more than {_UNPACKED >> 20:,} MiB, and people's workbooks do not"
                raise UserError(what, str(path), "open it in a spreadsheet program and save it again")
            if found != said:
                raise zipfile.BadZipFile("a size is untrue")


def _unpacked(packed: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> int:
    """Bytes of a member as they really are, counted until they are more than may be."""
    found = 0
    with packed.open(member) as source:
        while found <= most and (block := source.read(_BLOCK)):
            found += len(block)
    return found


def _rows(page: Any, most: int | None) -> list[Row]:
    page.reset_dimensions()  # what the file says of its size need not be so
    return _filled(enumerate(page.iter_rows(values_only=True, max_row=most), 1))


def _filled(rows: Iterable[tuple[int, Sequence[Any]]]) -> list[Row]:
    return [(number, row) for number, row in rows if any(each not in (None, "") for each in row)]


def _csv(path: Path) -> list[tuple[str, list[Row]]]:
    raw = path.read_bytes()
    for encoding in ("utf-8-sig", "gb18030"):  # a Chinese Excel saves CSV as GB 18030
        try:
            text = raw.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise UserError("is neither UTF-8 nor GB 18030", str(path), "save it as 'CSV UTF-8', or as .xlsx")
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)  # programs of some countries write semicolons
    csv.field_size_limit(1 << 24)
    try:
        return [("", _filled(enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator), 1)))]
    except csv.Error as error:
        raise UserError(f"cannot be read ({first_line(error)})", str(path), "save it as .xlsx") from error


def _letters(place: int) -> str:
    """Name of a column: 0 is A, 26 is AA."""
    name = ""
    while place >= 0:
        name, place = chr(ord("A") + place % 26) + name, place // 26 - 1
    return name
