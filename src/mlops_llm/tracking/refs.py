"""What refs of the record name: `models:/sales@champion`, `models:/sales/3`, `models:/m-…`, `runs:/RUN/best`."""

from __future__ import annotations

import re

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.store import Store


def checkpoint(store: Store, ref: str) -> CheckpointRow:
    """The checkpoint that a ref names.

    Raises:
        UserError: there is none; what there is nearby is named.
    """
    kind, _, rest = ref.partition(":/")
    if kind == "runs":
        run, _, which = rest.rpartition("/")
        if not run:
            raise UserError("names no checkpoint", ref, f"use runs:/{rest}/best, /last or /checkpoint-STEP")
        return _of_run(store, run, which, ref)
    if re.fullmatch(r"m-[0-9a-f]{32}", rest):
        return checkpoints.by_id(store, rest)
    if "@" in rest:
        name, _, alias = rest.partition("@")
        return checkpoints.by_version(store, name, alias, alias=True)
    if "/" in rest:
        name, _, version = rest.rpartition("/")
        return checkpoints.by_version(store, name, version, alias=False)
    raise UserError("names no version", ref, f"use models:/{rest}@challenger or models:/{rest}/1")


def _of_run(store: Store, run: str, which: str, ref: str) -> CheckpointRow:
    found = ledger.find_run(store, run)
    rows = [row for row in checkpoints.of_run(store, found.id) if row.status == "READY"]
    if not rows:
        raise UserError(f"run '{found.name}' has no whole checkpoint", ref, "take another run or resume it")
    names = {row.name: row for row in rows}
    if which == "last":
        return next((row for row in reversed(rows) if not row.name.endswith("-ema")), rows[-1])
    if which == "best":
        best = found.tags.get("best.checkpoint", "")
        if best not in names:
            raise UserError(f"run '{found.name}' has not chosen its best checkpoint", ref, "use /last or /checkpoint-STEP")
        return names[best]
    if which not in names:
        there = ", ".join(names)
        raise UserError(f"run '{found.name}' has no '{which}'{near(which, names)}", ref, f"it has: {there}, best, last")
    return names[which]
