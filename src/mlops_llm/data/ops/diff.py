"""`op=diff`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from mlops_llm.component import component, near
from mlops_llm.data import diff, ref
from mlops_llm.data.config import Data, Work
from mlops_llm.data.read import Row
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result, Run

_LONGEST = 100


@component("op", "diff")
@dataclass
class Diff:
    """Show how a dataset differs from another version: rows added, removed and changed, field by field."""

    records: ClassVar[bool] = False
    against: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The later state, such as sales_sft@v1.1; null compares the current version (then) with the file (now)."""
    key: str = ""
    """Field that names a row, such as id; without one equal prompts and near texts are one row."""
    rows: int = 10
    """Most rows to show of each sort; result.json has all."""

    def __post_init__(self) -> None:
        """Check the number of rows."""
        if self.rows < 1:
            raise UserError(f"is {self.rows}", "op.rows", "give a whole number from 1")

    def prepare(self, request: Data) -> Work:
        """Read both sides."""
        name = request.wanted()
        if self.against is None:
            known = ref.registered(name.partition("@")[0])
            sides = [name if "@" in name else f"{known.name}@{known.current.label if known.current else ''}", known.name]
            before, after = ref.open_dataset(sides[0], request.read), ref.open_dataset(known.name, request.read)
        else:
            sides = [name, self.against]
            before, after = (ref.open_dataset(side, request.read) for side in sides)
        if self.key and not any(self.key in row for row in (*before.rows, *after.rows)):
            raise UserError(f"no row has the field '{self.key}'{near(self.key, before.rows[0])}", "op.key", "name one")

        def work(run: Run) -> Result:
            found = diff.compare(before.rows, after.rows, self.key)
            table: dict[str, Any] = {
                "from": f"{sides[0]} ({len(before.rows)} rows, {before.canonical[:12]})",
                "to": f"{sides[1]} ({len(after.rows)} rows, {after.canonical[:12]})",
                "added": len(found.added),
                "removed": len(found.removed),
                "changed": len(found.changed),
                "same": f"{found.same}{' (in another order)' if found.moved else ''}",
            }
            if found.unpaired:
                table["note"] = "too many rows differ to pair them by nearness: name a field that identifies a row (op.key=id)"
            values = {
                "rows_added": found.added,
                "rows_removed": found.removed,
                "rows_changed": [{"before": each.before, "after": each.after} for each in found.changed],
                "moved": found.moved,
                "digests": after.digests,
            }
            return Result("differences", table, values, shown=self._shown(found))

        return work

    def _shown(self, found: diff.Difference) -> list[Grid | str]:
        said: list[Grid | str] = []
        for title, rows in (("added", found.added), ("removed", found.removed)):
            if rows:
                said.append(Grid(f"{len(rows)} {title}", ("row",), [[_cut(row)] for row in rows[: self.rows]]))
        if found.changed:
            lines = [
                (number if first else "", field, _cut(before), _cut(after))
                for number, change in enumerate(found.changed[: self.rows], 1)
                for first, (field, (before, after)) in zip(
                    [True, *[False] * (len(change.fields) - 1)], change.fields.items(), strict=True
                )
            ]
            said.append(Grid(f"{len(found.changed)} changed", ("", "field", "before", "after"), lines))
        return said


def _cut(value: Row | Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
