"""An evaluation as JSON: everything that a report says, with numbers as numbers (see schema.json)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm.component import plain
from mlops_llm.eval.outcome import Group, Outcome, Sample, Score, Seen
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.taken import Taken, performance
from mlops_llm.inference.engine import Class, Failure
from mlops_llm.record import DatasetInput, Grid

ARTIFACT = "evaluation.json"
"""What every evaluation leaves in its run."""
FORM = "mlops_llm.evaluation/1"
_SETTINGS = ("sampling", "care", "limit", "sample", "cache", "seed", "overlap", "read", "model_load", "benchmarks")


@cache
def schema() -> Any:
    """The JSON Schema (draft 2020-12) of what `facts` makes; a report has `record`, `comparison`, `people` and `words` too."""
    return json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))


def of_run(plan: Plan, outcome: Outcome, taken: Taken, run: str) -> dict[str, Any]:
    """An evaluation that was carried out.

    Args:
        plan: what was asked for.
        outcome: what was found; without texts where they are not to be kept.
        taken: what it took.
        run: name of the run.
    """
    settings, subject = plan.settings, plan.subject
    model: dict[str, Any] = {"name": plan.model}
    if subject and (checkpoint := subject.checkpoint):
        tags = checkpoint.tags
        model |= {"checkpoint": checkpoint.name, "step": checkpoint.step, "template_source": subject.template_source}
        model |= {"weights": tags["digest.weights"], "template": tags["digest.template"]}
        model |= {"logged_model": checkpoint.model, "trained_by": subject.place.run}
    if subject:
        model |= {"digest": subject.digest, "tokenizer": subject.vocabulary, "bytes": subject.bytes}
    judge = settings.judge
    about = {
        "run": run,
        "model": model,
        "dataset": _rows(plan.questions.as_input()) | {"ability": plan.ability} if plan.questions else None,
        "benchmarks": [_rows(one.as_input(settings.limit)) for one in plan.benchmarks if one.local],
        "metrics": {name: plain(one) for name, one in plan.metrics.items()},
        "judge": {"name": judge.name, "settings": plain(judge), "numbers": dict(judge.numbers())}
        if judge is not None
        else None,
        "settings": {name: plain(getattr(settings, name)) for name in _SETTINGS},
        "performance": performance(outcome, taken),
        "texts": settings.save_outputs,
    }
    return facts(outcome, about)


def facts(outcome: Outcome, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What was found, and what else is known.

    Args:
        outcome: what was found.
        about: `run`, `model`, `dataset`, `benchmarks`, `metrics`, `judge`, `settings`, `performance`, `texts`, as far as known.
    """
    found = {
        "form": FORM,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "title": outcome.title,
        "run": "",
        "model": {"name": outcome.model},
        "dataset": None,
        "dataset_name": outcome.dataset,
        "benchmarks": [],
        "engine": outcome.engine,
        "metrics": {},
        "judge": None,
        "settings": {},
        "performance": {},
        "texts": True,
        **(about or {}),
        "totals": {
            "samples": len(outcome.samples),
            "succeeded": outcome.succeeded,
            "failed": outcome.failures.total(),
            "failures": dict(outcome.failures.most_common()),
        },
        "scores": [_told(each) for each in outcome.scores],
        "groups": [dataclasses.asdict(each) for each in outcome.groups],
        "tables": {name: dataclasses.asdict(grid) for name, grid in outcome.tables.items()},
        "facts": dict(outcome.facts),
        "warnings": list(outcome.warnings),
        "samples": [_sample(each) for each in outcome.samples],
    }
    cleaned: dict[str, Any] = _json(found)
    return cleaned


def _told(score: Score) -> dict[str, Any]:
    """What a total is made of is left out: it serves to compare models whose answers are there."""
    made = dataclasses.asdict(dataclasses.replace(score, sums=None))
    del made["sums"]
    return made


def outcome_of(found: Mapping[str, Any]) -> Outcome:
    """What was found, from its JSON; a number that JSON cannot hold is NaN."""
    return Outcome(
        found["title"],
        found["model"]["name"],
        found["dataset_name"],
        found["engine"],
        [_score(each) for each in found["scores"]],
        [_revived(each) for each in found["samples"]],
        found["facts"],
        [Group(**{**each, "scores": _numbers(each["scores"])}) for each in found["groups"]],
        {name: Grid(**grid) for name, grid in found["tables"].items()},
        found["warnings"],
    )


def _rows(data: DatasetInput) -> dict[str, Any]:
    return {"name": data.name, "version": data.version, "source": data.source, "rows": data.rows, "digests": dict(data.digests)}


def _sample(sample: Sample) -> dict[str, Any]:
    found = {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}
    failure = sample.failure
    found["failure"] = {"kind": failure.kind.value, "cause": failure.cause, "seconds": failure.seconds} if failure else None
    return found


def _score(each: Mapping[str, Any]) -> Score:
    seen = Seen(**each["seen"]) if each["seen"] else None
    interval = tuple(map(_number, each["interval"])) if each["interval"] else None
    return Score(**{**each, "value": _number(each["value"]), "interval": interval, "seen": seen})


def _revived(each: Mapping[str, Any]) -> Sample:
    failure = each["failure"]
    made = Failure(Class(failure["kind"]), failure["cause"], failure["seconds"]) if failure else None
    return Sample(**{**each, "scores": _numbers(each["scores"]), "failure": made})


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _json(value: Any) -> Any:
    """A value as JSON can hold it: no infinity, and words for what it does not know."""
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
