"""Steps on the workers of a Ray cluster (Ray Data). On one machine its start alone takes longer than most of the work."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from mlops_llm.data.engine import Step
from mlops_llm.launch.cluster import cause, cpus

ROWS = 8192
"""Rows of a table that travels, at most."""


class Spread:
    """Every table goes to some worker; what comes out passes through this process, in any order."""

    def __init__(self, ray: Any) -> None:
        """Take a Ray that is connected."""
        from ray.data import DataContext

        self._workers = cpus(ray)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def map(self, step: Step, tables: Iterable[pa.Table], *, kept: bool = False) -> Iterator[pa.Table]:
        """Apply a step to every table, as it is cut; a step that is `kept` is held by as many processes as there are cores."""
        from ray.data import ActorPoolStrategy

        held = list(tables)
        if kept:
            most = min(self._workers, len(held))
            pool = ActorPoolStrategy(min_size=1, max_size=max(1, most))
            return self._out(_Kept, step, held, {"fn_constructor_args": (step,), "compute": pool})
        return self._out(step, step, held, {})

    def by_key(self, step: Step, tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
        """Bring equal keys together by their hash, and apply the step to each part."""
        held = [part for table in tables for part in _cut(table)]
        parts = min(2 * self._workers, 1 + sum(map(len, held)) // ROWS)
        return self._out(step, step, held, {}, parts, key)

    def _out(
        self, work: Any, step: Step, held: list[pa.Table], how: dict[str, Any], parts: int = 0, key: str = ""
    ) -> Iterator[pa.Table]:
        import ray.data

        if not held:
            return
        empty, is_empty = held[0].slice(0, 0), True
        data: Any = ray.data.from_arrow([table for table in held if len(table)] or [empty])
        held.clear()
        if parts:
            data = data.repartition(parts, keys=[key])
        data = data.map_batches(work, batch_format="pyarrow", batch_size=None, zero_copy_batch=True, **how)
        try:
            for table in data.iter_batches(batch_format="pyarrow", batch_size=None):
                is_empty = False
                yield table
        except Exception as error:
            found = cause(error)
            if found is error:
                raise
            raise found from None
        if is_empty:
            yield step(empty)  # Ray passes no table on that has no rows, and with it the columns would be lost


class _Kept:
    """A step in a process of its own."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._step(table)


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    if not len(table):
        yield table
    for start in range(0, len(table), ROWS):
        yield table.slice(start, ROWS)
