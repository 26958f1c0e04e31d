"""`op=gc`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result, Run
from mlops_llm.registry.config import Registry, Work
from mlops_llm.registry.sweeping import Sweep

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@component("op", "gc")
@dataclass
class CollectGarbage:
    """Plan which checkpoints go so that the others fit a budget; never what an alias was made of, or a running run needs."""

    records: ClassVar[bool] = True
    budget: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """What all checkpoints may take on this machine: 20GB, 500MB, or bytes."""
    dry_run: bool = True
    """Only show the plan; false deletes."""

    def prepare(self, request: Registry) -> Work:
        """Read what is there, and see that the budget can be met."""
        from mlops_llm.registry import collecting
        from mlops_llm.registry.sweeping import sweep
        from mlops_llm.tracking.store import connect

        budget, store = self._bytes(), connect()
        found = collecting.collected(store)
        plan = sweep(found.nodes, found.stored, budget)
        if plan.after > budget:
            raise _too_small(budget, plan, found.unread)

        def work(run: Run) -> Result:
            for each in found.nodes if found.unread else ():
                if each.id in found.unread:
                    console.warn(f"{each.run}/{each.name} stays, and what it may lie on: {found.unread[each.id]}")
            gone = [] if self.dry_run else collecting.carry_out(store, plan, run.name)
            grids = _grids(plan, {each.id: f"{each.run}/{each.name}" for each in found.nodes}, found.places)
            for name, grid in zip(("going.json", "staying.json"), grids, strict=True):
                run.artifact(name, {head: [row[at] for row in grid.rows] for at, head in enumerate(grid.columns)})
            table = _table(plan, budget, len(found.nodes), None if self.dry_run else len(gone))
            values = {
                "going": [{"model": each.node.id, "rank": each.rank.name, "lost": each.lost, "freed": each.freed,
                           "folders": [str(one) for one in found.places[each.node.id]]} for each in plan.going],
                "kept": dict(plan.kept),
                "unread": dict(found.unread),
                "gone": gone,
                "bytes": {"before": plan.before, "after": plan.after, "protected": plan.protected},
            }  # fmt: skip
            return Result("gc: plan" if self.dry_run else "gc: done", table, values, [each for each in grids if each.rows])

        return work

    def _bytes(self) -> int:
        if not self.budget:
            raise UserError("is not given", "op.budget", "say what all checkpoints may take: op.budget=20GB")
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?b)?\s*", self.budget, re.IGNORECASE)
        if not found:
            raise UserError(f"'{self.budget}' is no size", "op.budget", "write 20GB, 500MB, or bytes")
        return round(float(found[1]) * _UNITS[(found[2] or "b").lower()])


def _too_small(budget: int, plan: Sweep, unread: Mapping[str, str]) -> UserError:
    what = f"is {console.size(budget)}, and {console.size(plan.protected)} are protected"
    remedy = f"give at least {plan.protected}, or move aliases first"
    if unread:
        what += f", also since files of {len(unread)} of the checkpoints cannot be read"
        remedy += f"; {next(iter(unread.values()))}"
    return UserError(what, "op.budget", remedy)


def _table(plan: Sweep, budget: int, count: int, gone: int | None) -> dict[str, str]:
    freed = console.size(plan.before - plan.after)
    table = {
        "checkpoints": f"{count} on this machine, {console.size(plan.before)}",
        "budget": console.size(budget),
        "protected": console.size(plan.protected),
        "would go" if gone is None else "gone": f"{len(plan.going) if gone is None else gone}, {freed}",
        "left": console.size(plan.after),
    }
    return table | ({"to delete them": "the same command with op.dry_run=false"} if gone is None and plan.going else {})


def _grids(plan: Sweep, names: Mapping[str, str], places: Mapping[str, Sequence[Path]]) -> list[Grid]:
    going = [
        [f"{each.node.run}/{each.node.name}", each.rank.name, console.size(each.freed), each.lost, _shown(places[each.node.id])]
        for each in plan.going
    ]
    staying = sorted([names[key], why] for key, why in plan.kept.items())
    return [
        Grid("what goes", ["checkpoint", "", "frees", "what is lost", "folders"], going),
        Grid("what stays whatever the budget is", ["checkpoint", "why"], staying),
    ]


def _shown(folders: Sequence[Path]) -> str:
    """Folders that are deleted, those of the working folder as they are typed."""
    here = Path.cwd()
    return ", ".join(str(each.relative_to(here) if each.is_relative_to(here) else each) for each in folders)
