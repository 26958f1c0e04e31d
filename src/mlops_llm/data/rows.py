"""What reading is told and what it gives: settings, rows, and records of lines that are none."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlops_llm.component import near
from mlops_llm.errors import UserError

Row = dict[str, Any]
SHOWN = 40
"""Characters of a row (a key, a cell, a text) that a message repeats at most; a message holds up to three of them."""


@dataclass
class Read:
    """How to read a foreign file."""

    encoding: str = "utf-8"
    """Text encoding of the file."""
    columns: Any = None
    """Our field -> the file's column, e.g. 'read.columns={prompt:q,response:a}' (in quotes); known forms need none."""

    def __post_init__(self) -> None:
        """Check the encoding's name and the mapping."""
        check_encoding(self.encoding)
        good = self.columns is None or (
            isinstance(self.columns, Mapping) and all(isinstance(each, str) for each in self.columns.values())
        )
        if not good:
            raise UserError(
                f"is {str(self.columns)[:SHOWN]!r}", "read.columns", "write 'read.columns={prompt:COLUMN,response:COLUMN}'"
            )


def check_encoding(encoding: str) -> str:
    """Python's own name of an encoding of texts.

    Raises:
        UserError: there is none of this name.
    """
    try:
        found = codecs.lookup(encoding).name
        "".encode(encoding)  # refuses codecs that are none of text, such as hex
    except LookupError as error:
        shown = encoding[:SHOWN]
        raise UserError(f"unknown encoding '{shown}'", "read.encoding", "for Chinese files try gb18030") from error
    return found


class Record(NamedTuple):
    """One row of a file, or what is wrong where one should be.

    A named tuple, because a file has millions of them and a frozen dataclass takes three times as long to make.
    """

    line: int
    """Line on which it begins; in Parquet, Arrow and on the hub the row's number; both from 1."""
    row: Row | None
    """None where there is a problem."""
    problem: str = ""
    remedy: str = ""
    file: str = ""
    """Name of the file: of the shard where the dataset is a folder."""

    @property
    def where(self) -> str:
        """Name the place for a person."""
        return place(self.file, self.line)


class BrokenError(Exception):
    """A file cannot be read on from here; what came before is good."""

    def __init__(self, problem: str, remedy: str = "", line: int = 0) -> None:
        """Keep the parts of the record that ends the file; line 0 is the one behind the last that was read."""
        super().__init__(problem, remedy, line)
        self.problem, self.remedy, self.line = problem, remedy, line


def place(file: str, line: int) -> str:
    """Name a row for a person: `rows.jsonl line 3`, `rows.parquet row 3`."""
    plain = file.removesuffix(".gz").removesuffix(".zst")
    numbered = plain.endswith((".parquet", ".arrow", ".feather", ".ipc")) or plain.startswith("hf:")
    return f"{file} {'row' if numbered else 'line'} {line}"


def names(keys: Iterable[Any]) -> str:
    """Names of fields, joined, cut off at 100 characters."""
    shown = ""
    for key in keys:
        if len(shown) > 100:
            return f"{shown[:100]}…"
        shown += (", " if shown else "") + str(key)[: SHOWN + 1]
    return shown if len(shown) <= 100 else f"{shown[:100]}…"


def renamed(found: Iterator[Record], columns: Mapping[str, str] | None) -> Iterator[Record]:
    """Records whose rows have our fields instead of their columns; a row without the column, or with both, is a problem.

    Args:
        found: the records.
        columns: our field -> their column; None changes nothing.
    """
    return _renamed(found, columns) if columns else found


def _renamed(found: Iterator[Record], columns: Mapping[str, str]) -> Iterator[Record]:
    kept = {ours: theirs for ours, theirs in columns.items() if ours not in columns.values()}
    for record in found:
        row = record.row
        if row is None:
            yield record
            continue
        missing = next((theirs for theirs in columns.values() if theirs not in row), None)
        # An empty column, or one that says the same, is no loss.
        taken = next((ours for ours, theirs in kept.items() if row.get(ours) not in (None, "", row.get(theirs))), None)
        if missing is not None:
            hint = near(missing, [key for key in row if len(key) <= SHOWN])
            problem = f"has no column '{missing[:SHOWN]}'{hint}"
            yield record._replace(row=None, problem=problem, remedy=f"it has: {names(row)}")
        elif taken is not None:
            problem = f"has a column '{taken[:SHOWN]}' of its own, which read.columns would write over"
            remedy = f"give that one a name too: read.columns.other_{taken[:SHOWN]}={taken[:SHOWN]}"
            yield record._replace(row=None, problem=problem, remedy=remedy)
        else:
            rest = {name: value for name, value in row.items() if name not in columns.values()}
            yield record._replace(row={**rest, **{ours: row[theirs] for ours, theirs in columns.items()}})
