"""Where steps over many rows run: two verbs, so that the same steps work on one machine and on many.

Exact and MinHash deduplication are made of such steps; checking, measuring, embedding and settling pairs are loops in this
process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Step = Callable[["pa.Table"], "pa.Table"]
"""A pure function from table to table; which rows share a table, and in which order, must not change what comes out."""


class Engine(Protocol):
    """Runs steps over tables."""

    def map(self, step: Step, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Apply a step to every table; rows of different tables do not meet."""
        ...

    def by_key(self, step: Step, tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
        """Apply a step to tables each of which holds all rows of every value of the column `key` that it holds."""
        ...


class Local:
    """This process: tables stream through `map` one by one, and `by_key` sees a single table of all rows."""

    def map(self, step: Step, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Apply a step to every table, each when it is asked for."""
        return (step(table) for table in tables)

    def by_key(self, step: Step, tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
        """Apply a step to all rows at once, in the order they came: a step sorts what it needs sorted."""
        import pyarrow as pa

        held = list(tables)
        if held:
            yield step(pa.concat_tables(held))
