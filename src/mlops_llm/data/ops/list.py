"""`op=list`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from enum import Enum
from typing import ClassVar

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.data import catalog
from mlops_llm.data.config import Data, Work
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result, Run


class Sort(Enum):
    """What the list is ordered by."""

    name = "name"
    kind = "kind"
    rows = "rows"
    size = "size"
    changed = "changed"


_BY = {sort: "bytes" if sort is Sort.size else sort.name for sort in Sort}


@component("op", "list")
@dataclass
class List:
    """Show the datasets in ./datasets, those that ship and those that are registered; `kind=` shows one kind."""

    records: ClassVar[bool] = False
    sort: Sort = Sort.name
    """Order; rows, size and changed begin with the largest and newest."""
    rows: int = 200
    """Most lines to show; result.json has all."""

    def __post_init__(self) -> None:
        """Check the number of lines."""
        if self.rows < 1:
            raise UserError(f"is {self.rows}", "op.rows", "give a whole number from 1")

    def prepare(self, request: Data) -> Work:
        """Nothing can be wrong."""

        def work(run: Run) -> Result:
            entries = [each for each in catalog.entries() if request.kind is None or each.kind == request.kind.name]
            descending = self.sort in (Sort.rows, Sort.size, Sort.changed)
            entries.sort(key=lambda each: getattr(each, _BY[self.sort]), reverse=descending)
            asking = any(each.ability or each.method for each in entries)
            columns = ["name", "kind", "rows", "size", "version", "changed", "where"]
            columns += ["ability", "method", "description"] if asking else ["description"]
            rows = [
                [
                    each.name,
                    each.kind or "?",
                    each.rows if not each.problem else "-",
                    console.size(each.bytes),
                    each.version or "-",
                    time.strftime("%Y-%m-%d %H:%M", time.localtime(each.changed)),
                    each.where,
                    *((each.ability or "-", ", ".join(each.method) or "-") if asking else ()),
                    each.problem or each.description,
                ]
                for each in entries[: self.rows]
            ]
            said: list[Grid | str] = [Grid(f"{len(entries)} dataset{'s' if len(entries) != 1 else ''}", columns, rows)]
            if len(entries) > self.rows:
                said.append(f"… and {len(entries) - self.rows} more (op.rows={len(entries)} shows all)")
            if any(each.version.endswith("*") for each in entries):
                said.append("* the file differs from this version: op=diff shows how, op=version keeps it")
            return Result("list", {}, {"datasets": [asdict(each) for each in entries]}, shown=said)

        return work
