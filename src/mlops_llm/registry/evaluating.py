"""Evidence that the record lacks is computed: by the evaluation room, each evaluation in a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlops_llm import component, console
from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.eval import evaluation, recording
from mlops_llm.eval.plan import Plan, prepare
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.record import Run
from mlops_llm.registry.config import Registry
from mlops_llm.registry.evidence import Lack

JUDGED = f"{PREFIX}judge/"


def plans(request: Registry, lacks: Sequence[Lack], refs: Mapping[int, str] | None = None, first: int = 1) -> dict[str, Plan]:
    """The evaluations that give what is lacking, checked; name -> plan.

    Args:
        request: how models are asked.
        lacks: what is lacking.
        refs: refs of versions that are not registered yet.
        first: number of the first one, by which they are called.

    Raises:
        UserError: no metric gives a score, or something does not fit; one line says what.
    """
    if lacks and not request.engine.local:
        raise UserError("nobody knows which weights a server has", "engine", "take engine=hf or engine=vllm")
    wanted = dict[tuple[int, str], list[Lack]]()
    for each in lacks:
        wanted.setdefault(each.key, []).append(each)
    made = dict[str, Plan]()
    for number, some in enumerate(wanted.values(), first):
        version, rows = some[0].version, some[0].rows
        metrics = _metrics(request, list(dict.fromkeys(each.score for each in some)))
        ref = (refs or {}).get(version.version, version.ref)
        settings = request.evaluation(ref, rows.dataset, rows.limit, metrics, ".")
        try:
            made[f"evaluation-{number}"] = prepare(replace(settings, judge=deepcopy(settings.judge)))
        except UserError as error:
            if not some[0].is_champion:
                raise
            what = f"the champion (version {version.version}) cannot be asked: {error.what}"
            raise UserError(what, error.where, f"{error.remedy}, or op.force=true op.reason='…'") from error
    return made


def remedy(request: Registry, lacks: Sequence[Lack]) -> str:
    """What a person may do about what is lacking: let it be computed, or mend what is in the way of that."""
    try:
        _metrics(request, list(dict.fromkeys(each.score for each in lacks)))
    except UserError as error:
        return f"op.evaluate=true does not compute it: {error.what}; {error.remedy}"
    return "op.evaluate=true computes it"


def carry_out(made: dict[str, Plan], folder: Path, run: Run) -> list[str]:
    """Ask the models, and record what they answered; return the names of the evaluations' runs.

    Raises:
        UserError: a model cannot be opened, or a server fails.
    """
    names = list[str]()
    for number, (name, plan) in enumerate(made.items(), 1):
        assert plan.questions
        console.detail(f"evaluating {plan.settings.model} on {plan.questions.name} ({number} of {len(made)})")
        plan = replace(plan, settings=replace(plan.settings, output=str(folder / name)))
        outcome, taken = evaluation.carried_out(plan, folder / name)
        told = {"choice.op": "score", "model": plan.settings.model, "dataset": plan.settings.dataset}
        with run.child(name, told) as inner:
            recording.inputs(plan, inner)
            recording.result(plan, outcome, replace(taken, peak=0, gpu=None), inner, pictures=False)
            inner.tags({"stage": "eval"})
            names.append(inner.name)
    return names


def _metrics(request: Registry, scores: Sequence[str]) -> dict[str, Any]:
    """The metrics that are asked for, with those that give the scores."""
    found = dict(request.metric)
    for score in scores:
        if score.startswith(JUDGED):
            if request.judge is None:
                raise UserError(f"{score} is a judge's, and none is named", "judge", "give judge=rubric_zh or judge=rubric_en")
            continue
        if any(score in map(named, metric.names) for metric in found.values()):
            continue
        gives = {name: _given(name) for name in component.groups().get("metric", {})}
        name = next((name for name, names in gives.items() if score in names), None)
        if name is None:
            what = f"no metric gives '{score}'{near(score, [each for names in gives.values() for each in names])}"
            raise UserError(what, "policy", "name a score of metric=[…], or evaluate by hand and leave op.evaluate out")
        found[name] = component.build("metric", name)
    return found


def _given(metric: str) -> list[str]:
    """Names that a metric's scores have in the record, with its own settings."""
    try:
        return [named(each) for each in component.build("metric", metric).names]
    except UserError:  # one that is nothing without settings
        return []
