"""`op=doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.record import Grid, Result, Run
from mlops_llm.registry.checkup import Digests
from mlops_llm.registry.config import Registry, Work


@component("op", "doctor")
@dataclass
class Doctor:
    """Look for what is broken in the record and on this machine, say the remedy of each, and mend what a next start mends."""

    records: ClassVar[bool] = True
    digests: Digests = Digests.aliased
    """Whose weights are read again: aliased, every, none."""

    def prepare(self, request: Registry) -> Work:
        """Look, before this command's own run mends anything."""
        from mlops_llm.registry.checkup import checkup
        from mlops_llm.registry.finding import State
        from mlops_llm.registry.surroundings import surroundings
        from mlops_llm.tracking.store import connect

        found = [*checkup(connect(), self.digests), *surroundings()]

        def work(run: Run) -> Result:
            order = list(State)[::-1]
            told = sorted(found, key=lambda each: order.index(each.state))
            rows = [[each.state.value, each.what, each.said, each.remedy] for each in told]
            grid = Grid("check-up", ["", "what", "found", "what to do"], rows)
            run.artifact("checkup.json", {head or "state": [row[at] for row in rows] for at, head in enumerate(grid.columns)})
            counts = {state: sum(each.state is state for each in found) for state in State}
            bad = counts[State.broken]
            table = {"broken": bad, "warnings": counts[State.warning], "fine": counts[State.fine]}
            values = {"findings": [{**asdict(each), "state": each.state.name} for each in found]}
            title = f"doctor: {bad} broken" if bad else "doctor: nothing is broken"
            return Result(title, table, values, [grid], failed=bool(bad))

        return work
