"""The checkpoints of a training, as models of an operation."""

from __future__ import annotations

from collections.abc import Sequence

from mlops_llm.errors import UserError
from mlops_llm.surgery.config import Surgery
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.store import connect

AVERAGED = "-ema"
"""Ends the name of a checkpoint that is an average already."""


def refs(request: Surgery) -> list[str]:
    """The models that are named, or the raw checkpoints of the run that is, by step.

    Raises:
        UserError: both or none are named, or the run has no checkpoint whose files are there.
    """
    if bool(request.models) == bool(request.run):
        what = "is given beside models" if request.run else "names no models"
        raise UserError(what, "run" if request.run else "models", "give models=[A,B], or run=RUN for those of a training")
    if not request.run:
        return list(request.models)
    store = connect()
    found = ledger.find_run(store, request.run)
    rows = [
        row
        for row in checkpoints.of_run(store, found.id)
        if row.status == "READY" and not row.name.endswith(AVERAGED) and row.tags.get("checkpoint.files") != checkpoints.REMOVED
    ]
    if not rows:
        raise UserError(f"run '{found.name}' has no whole checkpoint", "run", "take another run or resume it")
    return [f"runs:/{found.name}/{row.name}" for row in rows]


def last(found: Sequence[str], count: int | None, where: str) -> list[str]:
    """The last `count` of them; all where it is None.

    Raises:
        UserError: there are fewer.
    """
    if count is not None and count > len(found):
        raise UserError(f"is {count}, and there are {len(found)} checkpoints", where, f"give a number up to {len(found)}")
    return list(found) if count is None else list(found[-count:])
