"""`op=versions`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import ClassVar

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.data import ref
from mlops_llm.data.config import Data, Work
from mlops_llm.record import Grid, Result, Run


@component("op", "versions")
@dataclass
class Versions:
    """Show a dataset's versions, newest first, the current one marked."""

    records: ClassVar[bool] = False

    def prepare(self, request: Data) -> Work:
        """Find the dataset."""
        known = ref.registered(request.wanted())

        def work(run: Run) -> Result:
            asking = any(each.ability or each.method for each in known.versions)
            columns = ["current", "label", "rows", "size", "made", "digest", "from"]
            columns += ["ability", "method", "description"] if asking else ["description"]
            rows = [
                [
                    "*" if each.current else "",
                    each.label,
                    each.rows,
                    console.size(each.bytes),
                    time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created / 1000)),
                    each.canonical[:12],
                    ", ".join(each.parents) or "-",
                    *((each.ability or "-", ", ".join(each.method) or "-") if asking else ()),
                    each.description,
                ]
                for each in reversed(known.versions)
            ]
            values = {"name": known.name, "digests": known.digests, "versions": [asdict(each) for each in known.versions]}
            return Result(
                "versions",
                {},
                values,
                shown=[Grid(f"{known.name}: {len(rows)} version{'s' if len(rows) != 1 else ''}", columns, rows)],
            )

        return work
