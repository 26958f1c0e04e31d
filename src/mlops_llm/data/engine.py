"""Where steps over many rows run: two verbs, so that the same steps work on one machine and on many.

Deduplication, checking and measuring are made of such steps; reading, writing, settling pairs and telling what came of it are
loops in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Step = Callable[["pa.Table"], "pa.Table"]
"""A pure function from table to table; which rows share a table, and in which order, must not change what comes out."""


class Engine(Protocol):
    """Runs steps over tables."""

    def map(self, step: Step, tables: Iterable[pa.Table], *, kept: bool = False) -> Iterator[pa.Table]:
        """Apply a step to every table; rows of different tables do not meet, and tables may come out in any order.

        Args:
            step: what is applied.
            tables: what it is applied to.
            kept: the step holds what is costly to make, such as a model: a worker makes it once.
        """
        ...

    def by_key(self, step: Step, tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
        """Apply a step to tables each of which holds all rows of every value of the column `key` that it holds."""
        ...


class Local:
    """This process: tables stream through `map` one by one, and `by_key` sees a single table of all rows."""

    def map(self, step: Step, tables: Iterable[pa.Table], *, kept: bool = False) -> Iterator[pa.Table]:
        """Apply a step to every table, each when it is asked for."""
        return (step(table) for table in tables)

    def by_key(self, step: Step, tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
        """Apply a step to all rows at once, in the order they came: a step sorts what it needs sorted."""
        import pyarrow as pa

        held = list(tables)
        if held:
            yield step(pa.concat_tables(held))


class Where(Enum):
    """Where an operation does its work."""

    local = "local"
    """In this process."""
    ray = "ray"
    """On a Ray cluster."""

    def check(self) -> None:
        """See that it can, before anything is read.

        Raises:
            UserError: Ray is not installed, or its cluster does not answer.
        """
        if self is Where.ray:
            from mlops_llm.launch import cluster

            cluster.check("op.engine")

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The engine, for as long as the context lasts.

        Raises:
            UserError: the cluster cannot be joined.
        """
        if self is Where.local:
            yield Local()
            return
        from mlops_llm.data.spread import Spread
        from mlops_llm.launch.cluster import joined

        with joined() as ray:
            yield Spread(ray)
