"""CSV, TSV and plain text."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence

from mlops_llm.data.encoding import LINE, Text
from mlops_llm.data.rows import SHOWN, Record, Row, names
from mlops_llm.errors import UserError

AS_JSON = ":json"
"""A column NAME:json holds the field NAME as JSON; an empty cell means that the row has no such field."""
HEADING = 100
"""Characters in the name of a column: a longer one is a row, and the header is missing."""


def table(text: Text, wanted: Sequence[str] = ()) -> Iterator[Record]:
    """Rows of CSV, or of TSV where the name says so: every cell is a text, and a formula is a text like any other.

    Args:
        text: the file.
        wanted: columns that must be there.

    Raises:
        UserError: the first line is no header, or lacks a wanted column.
    """
    tabs = text.path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
    mark = "\t" if tabs else ","
    csv.field_size_limit(max(csv.field_size_limit(), LINE))  # its own limit is 128 kB; a cell may be a long document
    text.head()
    # Each line has its break again, so that a cell of several lines keeps them.
    reader = csv.reader((f"{line}\n" for line in text.lines()), delimiter=mark, strict=True)
    header = _header(reader, text, mark)
    missing = [column for column in wanted if column not in header]
    if missing:
        raise UserError(f"has no column '{missing[0][:SHOWN]}'", str(text.path), f"it has: {names(header)}")
    return _rows(reader, header, text)


def _header(reader: Iterator[list[str]], text: Text, mark: str) -> list[str]:
    where = str(text.path)
    try:
        header = next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise UserError(f"is not CSV ({error})", where, "mend the first line") from error
    joined = mark.join(header)
    flaw = None if text.sound else text.flaw(joined)
    if flaw:
        raise UserError(f"line 1 {flaw[0]}", where, flaw[1])
    if len(header) == 1:
        other = next((each for each in (",", ";", "\t", "|") if each != mark and each in header[0]), "")
        if other:
            told = {"\t": "tabs"}.get(other, f"'{other}'")
            raise UserError(f"its cells are separated by {told}", where, "save it with commas as .csv, or with tabs as .tsv")
    problem = ""
    for column in header:
        if not column.strip():
            problem = "a column has no name"
        elif len(column) > HEADING or is_number(column):
            problem = f"'{column[:SHOWN]}' is no name of a column"
        elif header.count(column) > 1:
            problem = f"two columns are called '{column[:SHOWN]}'"
        if problem:
            break
    if problem:
        raise UserError(
            f"the first line is no header: {problem}", where, "write the names of the columns there, e.g. prompt,response"
        )
    return header


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, which is no name of a column."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rows(reader: Iterator[list[str]], header: list[str], text: Text) -> Iterator[Record]:
    width, file = len(header), text.path.name
    coded = [place for place, column in enumerate(header) if column.endswith(AS_JSON)]
    while True:
        # A row may run over several lines, and blank ones may come before it.
        begin = text.line + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            unclosed = "unexpected end" in str(error)
            problem = "a quote is not closed" if unclosed else f"is not CSV ({error})"
            yield Record(begin, None, problem, 'double a quote within a cell: ""', file)
            continue
        if cells is None:
            return
        if not cells:
            continue
        flaw = None if text.sound else text.flaw(",".join(cells))
        if flaw:
            yield Record(begin, None, *flaw, file)
        elif len(cells) != width:
            problem = f"has {len(cells)} cell{'s' * (len(cells) != 1)}, not {width} as the header"
            yield Record(begin, None, problem, "mend the line: a comma within a cell needs quotes around it", file)
        elif coded:
            row, problem = decoded(dict(zip(header, cells, strict=True)))
            yield Record(begin, row, problem, "write the cell as JSON" if problem else "", file)
        else:
            yield Record(begin, dict(zip(header, cells, strict=True)), file=file)


def decoded(cells: Row) -> tuple[Row | None, str]:
    """A row whose columns NAME:json are fields again, or None and what is wrong."""
    row: Row = {}
    for column, cell in cells.items():
        if not column.endswith(AS_JSON):
            row[column] = cell
        elif cell not in ("", None):
            try:
                row[column.removesuffix(AS_JSON)] = json.loads(cell)
            except (ValueError, TypeError, RecursionError):
                return None, f"the cell of '{column[:SHOWN]}' is not JSON"
    return row, ""


def prompts(text: Text) -> Iterator[Record]:
    """Prompts of plain text: one a line; or one a block, where blank lines stand between blocks of several lines.

    Which of them is decided by the first megabyte.
    """
    blocks = _in_blocks(text.head())
    file, gathered, begin = text.path.name, list[str](), 0
    for raw in text.lines():
        line = raw.rstrip("\r")
        flaw = None if text.sound else text.flaw(line)
        if flaw:
            yield Record(text.line, None, *flaw, file)
        elif line.strip() and blocks:
            begin = begin if gathered else text.line
            gathered.append(line)
        elif line.strip():
            yield Record(text.line, {"prompt": line.strip()}, file=file)
        elif gathered:
            yield Record(begin, {"prompt": "\n".join(gathered)}, file=file)
            gathered = []
    if gathered:
        yield Record(begin, {"prompt": "\n".join(gathered)}, file=file)


def _in_blocks(head: str) -> bool:
    filled = [bool(line.strip()) for line in head.strip().replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return not all(filled) and any(one and two for one, two in itertools.pairwise(filled))
