"""Other evaluations of the same rows, from the record, beside the one that is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm.eval import conditions
from mlops_llm.tracking.ledger import RunRow

MOST = 4
"""Other evaluations that stand beside it, the newest of each model."""
_SCORE = "score/"
_COST = {"judge_calls": "perf/judge_calls", "judge_cost": "perf/judge_cost"}


def comparison(own: RunRow, others: Sequence[RunRow], signatures: Mapping[str, str]) -> dict[str, Any]:
    """What a report says of other evaluations.

    Args:
        own: run of the reported evaluation.
        others: of the same rows, newest first; of each model the newest is taken.
        signatures: name of a score in the record -> how it was counted; one that was counted otherwise is left out.
    """
    newest = dict[str, RunRow]()
    for each in others:
        if not any(key.startswith(_SCORE) for key in each.metrics):
            continue
        newest.setdefault(_model(each), each)
    newest.pop(_model(own), None)
    taken = list(newest.values())[:MOST]
    runs = [_told(own, own, signatures), *(_told(each, own, signatures) for each in taken)]
    return {"runs": runs, "left_out": len(newest) - len(taken)}


def _model(run: RunRow) -> str:
    return run.tags.get("digest.weights") or run.tags.get("model", "")


def _told(run: RunRow, own: RunRow, signatures: Mapping[str, str]) -> dict[str, Any]:
    scores = {}
    for key, value in run.metrics.items():
        name = key.removeprefix(_SCORE)
        if key == name or name not in signatures or run.tags.get(f"metric.{name}", "") != signatures[name]:
            continue
        low, high = run.metrics.get(f"{key}_low"), run.metrics.get(f"{key}_high")
        scores[name] = {"value": value, "interval": None if low is None or high is None else [low, high]}
    return {
        "run": run.name,
        "id": run.id,
        "model": run.tags.get("model", ""),
        "weights": run.tags.get("digest.weights", ""),
        "scores": scores,
        "speed": conditions.measured(run),
        "cost": {name: run.metrics[key] for name, key in _COST.items() if key in run.metrics},
        "other_conditions": conditions.others(own, run),
    }
