"""The texts of rows that are compared, as columns, and what makes two spellings of a text one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlops_llm.data.read import Row
from mlops_llm.data.texts import sides

FIELDS = ("prompt", "answer", "solution")
SCHEMA = pa.schema([("id", pa.int64()), ("line", pa.int64()), *((name, pa.large_string()) for name in FIELDS)])
ROWS = 8192
"""Rows in a table, so that memory does not grow with the file."""
_RAISED = "([⁰¹²³⁴-⁹₀-₉¼-¾⅐-⅞]+)"
_FORMAT = r"[\p{Cf}\x{00}-\x{08}\x{0e}-\x{1b}\x{7f}]+"
_SPACE = r"[\s\p{Z}\x{1c}-\x{1f}\x{85}]+"
_END = r"[\s。．.！!，,；;：:、…~～]+$"


def tables(rows: Iterable[tuple[int, Row]], size: int = ROWS) -> Iterator[pa.Table]:
    """Turn (line, row) pairs into tables of `SCHEMA`, at most `size` rows each.

    A system prompt and tools count as asked, and the label of a row without solution as its solution: rows that differ in
    them are not the same.
    """
    counted = enumerate(rows)
    while batch := list(islice(counted, size)):
        columns = zip(*((number, line, *_compared(row)) for number, (line, row) in batch), strict=True)
        yield pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _compared(row: Row) -> tuple[str, str, str | None]:
    asked, answered, solution = sides(row, marked=True)
    if solution is None and row.get("label") is not None:
        solution = sides({"prompt": row["label"]})[0]
    return asked, answered, solution


def normal(table: pa.Table, columns: Sequence[str], *, case: bool, ends: bool) -> pa.Table:
    """Bring spellings of the same text together.

    NFKC, without control and format characters (such as zero-width spaces), white space as single spaces. Raised and lowered
    digits and fractions are set apart before NFKC, which would turn 5² into 52.

    Args:
        table: any table.
        columns: the text columns to bring together.
        case: make letters small too.
        ends: strip final punctuation too, but not what makes a question of a statement.
    """
    for name in columns:
        column: Any = pc.replace_substring_regex(table[name], _RAISED, r"^\1")
        column = pc.utf8_normalize(column, "NFKC")
        column = pc.replace_substring_regex(column, _FORMAT, "")
        column = pc.utf8_trim_whitespace(pc.replace_substring_regex(column, _SPACE, " "))
        if ends:
            column = pc.replace_substring_regex(column, _END, "")
        if case:
            column = pc.utf8_lower(column)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
