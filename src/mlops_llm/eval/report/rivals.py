"""Other evaluations of the same rows, from the record, compared with the one that is reported by their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.comparison_record import values
from mlops_llm.eval.people.imported import IMPORTED
from mlops_llm.eval.recorded import Recorded, side_by_side
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.eval.report.facts import outcome_of
from mlops_llm.eval.report.source import ROWS, facts_of
from mlops_llm.tracking import ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

MOST = 4
"""Other evaluations that stand beside it, one of each model."""
WHY = {
    "many": f"there are more than {MOST} models",
    "texts": "it kept no texts (save_outputs=false), by which its answers would be paired",
}
"""Why an evaluation is left out; else what the record says of it."""


def comparison(store: Store, own: RunRow, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of other evaluations.

    Args:
        store: the record.
        own: run of the reported evaluation.
        facts: its `evaluation.json`.

    Returns:
        `side_by_side`, which is what a comparison's `comparison.json` holds, this evaluation first, or None where there is
        no other; and `left_out`: model, run and reason of each evaluation that is not compared.
    """
    others, left_out = _others(store, own, facts)
    found = [Recorded(own, facts, outcome_of(facts)), *others]
    if not facts["texts"]:  # then all of them are paired by the places of their rows
        found = [replace(each, facts={**each.facts, "texts": False}) for each in found]
    made = None
    try:
        made = told(found) if others else None
    except UserError as error:
        left_out += [_left(each.run, each.ref, error.what) for each in others]
    return {"side_by_side": made, "left_out": left_out}


def told(found: list[Recorded]) -> dict[str, Any]:
    """Evaluations side by side as JSON.

    Raises:
        UserError: they have no row in common.
    """
    made = values(side_by_side(found, common=True))
    for model, each in zip(made["models"], found, strict=True):
        model |= {"id": each.run.id, "weights": each.facts["model"].get("weights", "")}
    return made


def _others(store: Store, own: RunRow, facts: Mapping[str, Any]) -> tuple[list[Recorded], list[dict[str, str]]]:
    """Of each other model the evaluation with most of the same scores (the newest of several), and why others are left out."""
    wanted = {named(each["name"]) for each in facts["scores"]}
    there = list[RunRow]()
    for each in _there(store, own, facts):
        is_scored = any(key.startswith(PREFIX) for key in each.metrics)
        if each.id != own.id and each.status == "FINISHED" and is_scored and IMPORTED not in each.tags:
            there.append(each)
    there.sort(key=lambda each: -len(wanted & each.metrics.keys()))  # newest first among equals
    nearest = {_model(each): each for each in reversed(there)}
    nearest.pop(_model(own), None)
    taken, left = list[Recorded](), list[dict[str, str]]()
    for run in sorted(nearest.values(), key=there.index):
        model = run.tags.get("model", "")
        try:
            other = facts_of(store, run, run.name) if len(taken) < MOST else None
        except UserError as error:
            left.append(_left(run, model, error.what))
            continue
        if other is None:
            left.append(_left(run, model, WHY["many"]))
        elif facts["texts"] and not other["texts"]:
            left.append(_left(run, model, WHY["texts"]))
        else:
            taken.append(Recorded(run, other, outcome_of(other)))
    return taken, left


def _there(store: Store, own: RunRow, facts: Mapping[str, Any]) -> list[RunRow]:
    """Evaluations that may be of the same rows, newest first; of benchmarks alone those whose first score was counted alike."""
    if ROWS in own.tags:
        return ledger.evaluations_of(store, own.tags[ROWS])
    first = next((f"metric.{named(each['name']).removeprefix(PREFIX)}" for each in facts["scores"] if each["signature"]), "")
    return ledger.tagged(store, {first: own.tags[first]}, 100) if first in own.tags else []


def _model(run: RunRow) -> str:
    return run.tags.get("digest.weights") or run.tags.get("model", "")


def _left(run: RunRow, model: str, why: str) -> dict[str, str]:
    return {"run": run.name, "model": model, "why": why}
