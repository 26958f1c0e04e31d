"""What people said of the model that is reported, on its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.people import ballot as ballots
from mlops_llm.eval.people.ballot import KEY, Ballot
from mlops_llm.eval.people.imported import IMPORTED, found_run
from mlops_llm.tracking import ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store

_RAW, _SUMMARY = "data.evaluation.digest.raw", "human/summary.json"


def people(store: Store, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """People's ratings of this very model on rows of this evaluation, the newest first; of one export its newest import.

    Args:
        store: the record.
        facts: the `evaluation.json`.
    """
    raw = (facts["dataset"] or {}).get("digests", {}).get("raw")
    made, seen = list[dict[str, Any]](), set[str]()
    for run in ledger.tagged(store, {_RAW: raw, IMPORTED: "h%"}) if raw else ():
        if run.status != "FINISHED" or run.tags[IMPORTED] in seen:
            continue
        seen.add(run.tags[IMPORTED])
        try:
            ballot = ballots.read(recorded_text(store, found_run(store, run.tags[IMPORTED]).id, KEY), KEY)
            summary = json.loads(recorded_text(store, run.id, _SUMMARY))
        except (UserError, ValueError):
            continue  # an import without its export or its summary tells nothing of a model
        number = _number(ballot, facts)
        if number is not None:
            made.append(_told(run, ballot.models[number].ref, summary))
    return made


def _number(ballot: Ballot, facts: Mapping[str, Any]) -> int | None:
    """Which of the rated models this one is; None where it is none of them, or other rows were rated."""
    asked = {each["place"] for each in facts["samples"] if not each["task"]}
    model = facts["model"]
    for number, each in enumerate(ballot.models):
        rows = {answer.place for answer in ballot.answers if answer.model == number}
        weights = each.checkpoint.tags.get("digest.weights") if each.checkpoint else None
        is_same = weights == model["weights"] if weights and model.get("weights") else each.ref == model["name"]
        if is_same and rows and rows <= asked:
            return number
    return None


def _told(run: RunRow, ref: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    scores = summary["scores"].get(ref, {})
    wins = list[dict[str, Any]]()
    for each in summary["wins"]:
        if ref == each["first"]:
            wins.append({"other": each["second"], **{name: each[name] for name in ("win", "tie", "loss", "rate", "interval")}})
        elif ref == each["second"]:
            low, high = each["interval"]
            turned = {"win": each["loss"], "tie": each["tie"], "loss": each["win"], "rate": 1 - each["rate"]}
            wins.append({"other": each["first"], **turned, "interval": [1 - high, 1 - low]})
    counted = [each for each in summary["raters"] if each["counted"]]
    return {
        "run": run.name,
        "id": run.id,
        "evaluation": summary["evaluation"],
        "raters": len(counted),
        "careless": sum(each["failed"] for each in counted),
        "scores": [{"name": name, **each} for name, each in scores.items()],
        "agreement": summary["agreement"],
        "wins": wins,
    }
