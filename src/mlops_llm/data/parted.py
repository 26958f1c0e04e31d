"""Rows in tables that travel to workers, and what comes back of each table, in the rows' order again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlops_llm.data.engine import Engine
from mlops_llm.data.rows import Record

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 2000
"""Rows in a table; no result depends on it."""
Numbered = tuple[int, Record]
"""A record and its number, from 1."""
Work = Callable[[list[Numbered]], dict[str, Any]]
"""What is done with the rows of a table; what comes of it must be what JSON holds."""


def each(work: Work, records: Iterable[Record], engine: Engine) -> Iterator[dict[str, Any]]:
    """Do a work on parts of the records; return what came of each part, in their order.

    Args:
        work: what is done; it may hold what is costly to make, such as a tokenizer.
        records: rows hold what JSON holds, so that they are the same over there.
        engine: where it is done.
    """
    found = list(engine.map(partial(_done, work=work), _tables(records), kept=True))
    told = sorted((place, text) for table in found for place, text in zip(*table.to_pydict().values(), strict=True))
    return (json.loads(text) for _, text in told)


def _tables(records: Iterable[Record]) -> Iterator[pa.Table]:
    import pyarrow as pa

    counted = enumerate(records, 1)
    while part := list(islice(counted, ROWS)):
        columns = {
            "number": pa.array([number for number, _ in part], pa.int64()),
            "line": pa.array([one.line for _, one in part], pa.int64()),
            "row": pa.array([None if one.row is None else json.dumps(one.row) for _, one in part], pa.large_string()),
        }
        for name in ("problem", "remedy", "file"):
            texts = [getattr(one, name).encode("utf-8", "surrogatepass") for _, one in part]
            columns[name] = pa.array(texts, pa.large_binary())
        yield pa.table(columns)


def _done(table: pa.Table, work: Work) -> pa.Table:
    """The step: `number` of the first row, and what came of all."""
    import pyarrow as pa

    rows = [
        (number, Record(line, None if row is None else json.loads(row), *map(_text, (problem, remedy, file))))
        for number, line, row, problem, remedy, file in zip(*table.to_pydict().values(), strict=True)
    ]
    found = json.dumps(work(rows)) if rows else "{}"
    first = [rows[0][0]] if rows else []
    return pa.table({"number": pa.array(first, pa.int64()), "found": pa.array([found] * len(first), pa.large_string())})


def _text(said: bytes) -> str:
    return said.decode("utf-8", "surrogatepass")
