"""Runs of the stages of a pipeline: begun for processes that adopt them, and found again by what they depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import NameTakenError, recorded_text, schedule, settle, withdraw
from mlops_llm.tracking.run import Opening
from mlops_llm.tracking.store import Store

INPUTS, PARTS = "pipeline.inputs", "pipeline.parts"
"""Tags of a stage's run: what its result depends on, as one digest and part by part."""
LIKE, OPERATION = "pipeline.like", "pipeline.operation"
"""Tags of a stage's run: digest of its settings, whatever its models and rows hold; what it does, for a person."""
SECONDS, BYTES = "pipeline.seconds", "pipeline.bytes"
"""Tags of a stage's run: what it took."""
_PARENT = "mlflow.parentRunId"


def begin(store: Store, opening: Opening) -> RunRow:
    """Create a run that waits for its process; of a name that is taken, NAME-2, NAME-3, … and its folder likewise.

    Until the process is there, this one stands for it: a run whose creator died is one that never began.

    Raises:
        UserError: the tracking server does not answer.
    """
    number, tags = 1, {**opening.tags, **environment.process_tags()}
    while True:
        more = "" if number == 1 else f"-{number}"
        folder = opening.output.with_name(f"{opening.output.name}{more}")
        try:
            run, _ = schedule(replace(opening, name=f"{opening.name}{more}", output=folder, tags=tags))
            return ledger.find_run(store, run)
        except NameTakenError:
            number += 1


def note(store: Store, run: str, tags: Mapping[str, str]) -> None:
    """Put tags on a run."""
    for key, value in tags.items():
        store.client.set_tag(run, key, value)


def reopen(store: Store, run: str, parent: str) -> None:
    """Let a run that was cut off wait for the process that goes on with it, below the pipeline that starts that.

    Until the process is there, this one stands for it, as in `begin`.
    """
    note(store, run, {_PARENT: parent, **environment.process_tags()})
    store.client.update_run(run, status="SCHEDULED")


def of_inputs(store: Store, inputs: str) -> list[RunRow]:
    """Runs of stages with these inputs, newest first; those of dead processes are closed, what never began is taken away."""
    settle(store)
    found = list[RunRow]()
    for each in ledger.tagged(store, {INPUTS: inputs}):
        if each.status != "SCHEDULED" or environment.believed_alive(each.tags):
            found.append(each)
        elif each.params:  # it was to go on
            store.client.set_terminated(each.id, "KILLED")
            found.append(replace(each, status="KILLED"))
        else:
            withdraw(each.id)
    return found


def lives(row: RunRow) -> bool:
    """Whether the process of a run, or the pipeline that is about to start it, is there."""
    return row.status in ("SCHEDULED", "RUNNING") and environment.believed_alive(row.tags)


def measured(store: Store, tag: str, value: str, most: int = 5) -> list[RunRow]:
    """Finished runs of stages that are alike by a tag and whose time is known, newest first."""
    rows = ledger.tagged(store, {tag: value}, most * 4)
    return [each for each in rows if each.status == "FINISHED" and SECONDS in each.tags][:most]


def row(store: Store, run: str) -> RunRow:
    """A run as it is now, with what waited for the record."""
    settle(store)
    return ledger.find_run(store, run)


def result(store: Store, run: str) -> dict[str, Any]:
    """A run's result.json; empty where it has none."""
    try:
        found = json.loads(recorded_text(store, run, "result.json"))
    except (UserError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
