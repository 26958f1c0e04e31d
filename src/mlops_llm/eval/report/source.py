"""An evaluation as the record holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.comparison_record import VALUES
from mlops_llm.eval.report.facts import ARTIFACT, FORM
from mlops_llm.tracking import ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store

ROWS = "data.evaluation.digest.canonical"
"""Tag of a run: digest of the rows that it asked."""
_SHOWN = 5
_OTHERS = {
    "compare": "is a comparison of several evaluations",
    "explain": "says why two models differ",
    "human_import": "holds ratings by people",
    "human_export": "wrote sheets for people",
    "calibrate": "sets judges against people",
    "report": "is a report itself",
}
"""Operations that leave no evaluation of their own."""


def facts_of(store: Store, run: RunRow, ref: str) -> dict[str, Any]:
    """What an evaluation left in its run.

    Args:
        store: the record.
        run: of the evaluation.
        ref: as the run was asked for.

    Raises:
        UserError: it is of another stage, or holds no results.
    """
    stage = run.tags.get("stage", "")
    if stage != "eval":
        what = f"is a run of the stage '{stage}', not of an evaluation" if stage else "is not a run of an evaluation"
        raise UserError(what, f"run={ref}", "name one: run=NAME")
    _refuse_other(store, run, ref)
    remedy = f"evaluate first; a stopped one goes on with: python -m mlops_llm.eval resume={run.name}"
    try:
        found: dict[str, Any] = json.loads(recorded_text(store, run.id, ARTIFACT))
    except UserError as error:
        jobs = [each.name for each in ledger.children(store, run.id)]
        if jobs:
            raise UserError("is the parent of several runs", f"run={ref}", f"name one: {_some(jobs)}") from error
        what = f"holds no results ({run.status}; it has no readable {ARTIFACT})"
        raise UserError(what, f"run={ref}", remedy) from error
    except ValueError as error:
        raise UserError(f"its {ARTIFACT} is broken", f"run={ref}", "evaluate anew") from error
    if found.get("form") != FORM:
        raise UserError(f"its {ARTIFACT} is of the form {found.get('form')}, not {FORM}", f"run={ref}", "evaluate anew")
    if not found["scores"] and not found["samples"]:
        raise UserError("holds no results: nothing was scored", f"run={ref}", remedy)
    return found


def _refuse_other(store: Store, run: RunRow, ref: str) -> None:
    """Say what a run is that is no evaluation, and which ones are meant.

    Raises:
        UserError: it is none.
    """
    what = _OTHERS.get(run.params.get("choice.op", ""))
    if what:
        names = _meant(store, run)
        raise UserError(what, f"run={ref}", f"name an evaluation: {_some(names)}" if names else "name that of one model")


def _meant(store: Store, run: RunRow) -> list[str]:
    """The evaluations that another operation took: of a report its own, of a comparison its models', else those of its rows."""
    if "report.run" in run.tags:
        return [ledger.find_run(store, run.tags["report.run"]).name]
    compared = _compared(store, run) or [each.name for each in ledger.children(store, run.id)]
    if compared or ROWS not in run.tags:
        return compared
    there = ledger.evaluations_of(store, run.tags[ROWS])
    return [each.name for each in there if each.params.get("choice.op") not in _OTHERS]


def _compared(store: Store, run: RunRow) -> list[str]:
    try:
        models = json.loads(recorded_text(store, run.id, VALUES))["models"]
        return [each["evaluation"] for each in models if each["evaluation"]]
    except (UserError, ValueError, KeyError, TypeError):
        return []


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
