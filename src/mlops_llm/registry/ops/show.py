"""`op=show`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.record import Grid, Result, Run
from mlops_llm.registry import listing
from mlops_llm.registry.config import Registry, Work
from mlops_llm.tracking.champions import Move
from mlops_llm.tracking.registered import ModelRow, VersionRow


@component("op", "show")
@dataclass
class Show:
    """Show one registered model: its versions and every change of its champion; with version= what was decided of that one."""

    records: ClassVar[bool] = False

    def prepare(self, request: Registry) -> Work:
        """Find the model, and the version where one is named."""
        from mlops_llm.registry import subject
        from mlops_llm.tracking import champions, registered
        from mlops_llm.tracking.store import connect

        store = connect()
        known = registered.model(store, request.registered)
        one = subject.version(store, request) if request.version else None
        rows = [one] if one else registered.versions(store, known.name)

        def work(run: Run) -> Result:
            shown = listing.columns(rows, request.policy)
            lines = listing.lines(store, rows, shown)
            told: list[Grid | str] = [listing.grid(known.name, lines, shown, with_model=False)]
            moves = champions.history(known.tags)
            told += _of_version(one) if one else [_moves(moves)] if moves else []
            left = champions.pending(known.tags)
            if left and not champions.is_at_work(store, left):
                told.append(f"the {left.kind} of version {left.version} was cut off: the next start completes it")
            values = {"versions": [each.values for each in lines], "history": [asdict(each) for each in moves]}
            return Result("show", _table(known, moves), values, shown=told)

        return work


def _table(known: ModelRow, moves: Sequence[Move]) -> dict[str, str]:
    named = {alias: f"version {number}" for alias, number in sorted(known.aliases.items())}
    return named | ({"last change": f"{moves[-1].time} by {moves[-1].by} ({moves[-1].kind})"} if moves else {})


def _moves(moves: Sequence[Move]) -> Grid:
    rows = [[each.number, each.time, each.kind, each.version, each.before, each.by, each.run, each.reason] for each in moves]
    return Grid("champions", ["", "when", "how", "version", "before", "by", "run", "why"], rows)


def _of_version(one: VersionRow) -> list[Grid | str]:
    """Every number of a version, and what was decided of it last."""
    numbers = [
        [each.name, each.dataset or "-", each.value]
        for each in sorted(one.measured, key=lambda each: (each.dataset, each.name))
        if not each.name.endswith(("_low", "_high"))
    ]
    told: list[Grid | str] = [Grid("numbers", ["", "on", "value"], numbers)] if numbers else []
    try:
        checks = json.loads(one.tags.get("decision.checks", "[]"))
    except ValueError:
        checks = []
    if checks:
        became, policy, run = (one.tags.get(name, "?") for name in ("decision", "decision.policy", "decision.run"))
        rows = [["ok" if each["passed"] else "NO", each["name"], each["said"]] for each in checks]
        told.append(Grid(f"last decision: {became} by policy {policy} (run {run})", ["", "asked", "found"], rows))
    return told
