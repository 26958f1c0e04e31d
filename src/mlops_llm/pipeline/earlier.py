"""What the record has of a stage: a finished run with equal inputs, one that runs, or one that was cut off."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm.pipeline import made
from mlops_llm.pipeline.flow import Step
from mlops_llm.pipeline.identity import Identity
from mlops_llm.pipeline.made import Made
from mlops_llm.tracking import ledger, nested, queued
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import SAYS_NO
from mlops_llm.tracking.store import Store

STAGE = "pipeline.stage"
"""Tag of a stage's run: its name in the flow."""
GIVEN_UP = "search.given_up"
"""Tag of a try's run that was stopped since others were better: by which number."""


@dataclass(frozen=True)
class Found:
    """What is there of a stage."""

    made: Made | None = None
    """What a finished run made."""
    alive: RunRow | None = None
    """One whose process is there."""
    resumable: RunRow | None = None
    """One that was cut off and can go on, where its stage can."""
    given_up: Made | None = None
    """One that a search gave up."""
    why: str = ""
    """What is another than the last time."""


def found(
    store: Store,
    step: Step,
    which: Identity,
    given: Mapping[str, Any],
    pipeline: str = "",
    *,
    always: bool = False,
    awaited: Collection[str] = (),
    barred: Collection[str] = (),
) -> Found:
    """Look for runs of a stage.

    Args:
        store: the record.
        step: the stage.
        which: what its result depends on.
        given: its settings, flat.
        pipeline: id of this pipeline's run.
        always: take no finished run but one of this pipeline itself, or one that it has waited for.
        awaited: ids of those.
        barred: ids of runs that are not to go on.
    """
    rows = nested.of_inputs(store, which.inputs)
    alive = next((row for row in rows if nested.lives(row)), None)
    if alive:
        return Found(alive=alive)
    for row in rows:
        if row.status != "FINISHED" or SAYS_NO in row.tags:
            continue
        if always and row.tags.get("mlflow.parentRunId") != pipeline and row.id not in awaited:
            continue
        one = made.of_run(store, step.name, row, given)
        if one.is_there:
            return Found(one)
    given_up = next((row for row in rows if GIVEN_UP in row.tags), None)
    if given_up:
        return Found(given_up=Made(step.name, given_up))
    ended = [row for row in rows if row.status in ("KILLED", "FAILED") and row.id not in barred]
    cut = next((row for row in ended if can_go_on(store, row)), None)
    return Found(resumable=cut, why="" if rows else _changed(store, step, which))


def can_go_on(store: Store, row: RunRow) -> bool:
    """Whether a run that was cut off had begun, and its folder is there."""
    folder = row.tags.get("output", "")
    return bool(folder) and Path(folder).is_dir() and row.status != "FINISHED" and queued.look(store.address, row.id).begun


def _changed(store: Store, step: Step, which: Identity) -> str:
    """What the last finished stage of this name that did the same had otherwise."""
    rows = ledger.tagged(store, {STAGE: step.name, nested.OPERATION: step.operation}, 20)
    before = next((row for row in rows if row.status == "FINISHED"), None)
    if before is None or nested.PARTS not in before.tags:
        return ""
    try:
        parts = json.loads(before.tags[nested.PARTS])
    except ValueError:
        return ""  # cut, since it was too long for a tag
    other = sorted(key for key in {*parts, *which.parts} if parts.get(key) != which.parts.get(key))
    return f"done again: {', '.join(other[:4])} changed since {before.name}" if other else ""
