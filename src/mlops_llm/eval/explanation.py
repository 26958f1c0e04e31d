"""Why do two models differ? What is different in how they were made, and of what, then in what they answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from mlops_llm.data.preview import safe
from mlops_llm.data.ref import record
from mlops_llm.eval.comparing import compare
from mlops_llm.eval.explain import Made, differences, made_of
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.plan import Plan
from mlops_llm.models import digested, load
from mlops_llm.models.ref import Place
from mlops_llm.record import Grid, Result, Run
from mlops_llm.tracking.checkpoints import by_weights
from mlops_llm.tracking.lineage import trace
from mlops_llm.tracking.origin import Origin, origin, recipe

_DIGITS = 12
DIFFERENCES = "differences.json"
"""Artifact: kind of difference -> columns and rows."""


def explain(places: Sequence[Place], plans: list[Plan], run: Run, lang: Lang) -> Result:
    """Set what the record knows of two models side by side, and their answers where rows are named.

    Args:
        places: the two models.
        plans: their evaluations on the same rows; none where no rows are named.
        run: open.
        lang: of the conclusion.

    Raises:
        UserError: a model cannot be opened, or a server fails.
    """
    store = record()
    one, other = (made(place) for place in places)
    found = differences(one, other, store)
    run.tags({"models": ", ".join(place.ref for place in places)})
    told = {each.title: {"columns": list(each.columns), "rows": [list(row) for row in each.rows]} for each in found}
    run.artifact(DIFFERENCES, json.dumps(told, ensure_ascii=False, indent=1))
    unknown = [
        f"{each.ref}: no run of the record made it, so that settings, code and environment cannot be compared"
        for each in (one, other)
        if not each.origin.run
    ]
    unknown += [f"{each.ref}: {what}" for each in (one, other) for what in each.lineage.unknown]
    parts = made_of(one, other)
    shown: list[Grid | str] = [*([parts] if parts else []), *found]
    values = {"differences": told, "unknown": unknown, "recipes": {each.ref: dict(each.recipe) for each in (one, other)}}
    if one.identity["weights"] == other.identity["weights"]:
        shown.append("both have the same weights")
    shown += [f"[yellow]⚠[/yellow] {safe(each)}" for each in unknown]
    if not plans:
        table = {each.title: f"{len(each.rows)} different" for each in found}
        return Result(f"{one.ref} and {other.ref}", table, values, shown)
    compared = compare(plans, run, lang)
    return replace(
        compared,
        values={**compared.values, **values},
        shown=[*shown, *compared.shown],
    )


def made(place: Place) -> Made:
    """What the record knows of a model; a copy of a recorded checkpoint is known as that one by its weights.

    Raises:
        UserError: its files are broken.
    """
    from mlops_llm.models import template

    store, weights = record(), digested.weights_digest(place)
    run, step = place.run, place.step
    if store and not run and (row := by_weights(store, weights)):
        run, step = row.run, row.step
    tokenizer = load.tokenizer_of(load.inspect(place, load.ModelLoad()))
    source = template.ensure(tokenizer, place.ref)
    identity = {
        "weights": weights[:_DIGITS],
        "template": template.template_digest(tokenizer)[:_DIGITS],
        "template source": source,
    }
    if run:
        identity["step"] = str(step)
    how = origin(store, run) if store and run else Origin()
    return Made(place.ref, how, trace(store, place, weights), identity, recipe(store, run, place.folder, weights))
