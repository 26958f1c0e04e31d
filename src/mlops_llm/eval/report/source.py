"""The evaluation that a report is about, as the record holds it."""

from __future__ import annotations

import json
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.eval.report.facts import ARTIFACT, FORM
from mlops_llm.eval.report.rivals import comparison
from mlops_llm.tracking import ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store

_ROWS = "data.evaluation.digest.canonical"
_MACHINE = {
    "command": "command", "commit": "git.commit", "uncommitted": "git.uncommitted", "python": "python", "system": "host.system",
    "cpu": "host.cpu", "memory_gb": "host.memory_gb", "gpu": "host.gpu", "prompt": "prompt",
}  # fmt: skip
_PACKAGES = "version."
_SHOWN = 5


def reported(store: Store, ref: str) -> dict[str, Any]:
    """An evaluation's facts with `record` and `comparison`.

    Args:
        store: the record.
        ref: id or name of the evaluation's run.

    Raises:
        UserError: there is no such run, it is of another stage, or it holds no results.
    """
    run = ledger.find_run(store, ref)
    found = facts_of(store, run, ref)
    found["record"] = _record(store, run)
    digest = run.tags.get(_ROWS, "")
    others = ledger.evaluations_of(store, digest) if digest else []
    signatures = {named(each["name"]).removeprefix(PREFIX): each["signature"] for each in found["scores"]}
    found["comparison"] = comparison(run, [each for each in others if each.id != run.id], signatures)
    return found


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
    remedy = f"evaluate first; a stopped one goes on with: python -m mlops_llm.eval resume={run.name}"
    jobs = [each.name for each in ledger.children(store, run.id)]
    if jobs:
        remedy = f"it is the parent of several, name one: {', '.join(jobs[:_SHOWN])}{', …' if len(jobs) > _SHOWN else ''}"
    try:
        found: dict[str, Any] = json.loads(recorded_text(store, run.id, ARTIFACT))
    except UserError as error:
        what = f"holds no results ({run.status}; it has no readable {ARTIFACT})"
        raise UserError(what, f"run={ref}", remedy) from error
    except ValueError as error:
        raise UserError(f"its {ARTIFACT} is broken", f"run={ref}", "evaluate anew") from error
    if found.get("form") != FORM:
        raise UserError(f"its {ARTIFACT} is of the form {found.get('form')}, not {FORM}", f"run={ref}", "evaluate anew")
    if not found["scores"] and not found["samples"]:
        raise UserError("holds no results: nothing was scored", f"run={ref}", remedy)
    return found


def _record(store: Store, run: RunRow) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "project": run.project,
        "status": run.status,
        "link": store.link(run.experiment, run.id),
        "machine": {name: run.tags[key] for name, key in _MACHINE.items() if key in run.tags},
        "packages": {key.removeprefix(_PACKAGES): value for key, value in run.tags.items() if key.startswith(_PACKAGES)},
        "settings": {key: value for key, value in sorted(run.params.items()) if value not in ("None", "", "[]")},
    }
