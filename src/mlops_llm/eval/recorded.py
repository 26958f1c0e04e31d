"""Evaluations as the record holds them, set side by side without asking any model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlops_llm import component, digest
from mlops_llm.errors import UserError
from mlops_llm.eval import conditions, scores
from mlops_llm.eval.comparison import Comparison, Cost, Model
from mlops_llm.eval.interval import of_mean
from mlops_llm.eval.metric import Item, Metric, Need
from mlops_llm.eval.metrics.latency import Latency
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.recording import IDENTITY, named
from mlops_llm.eval.report.facts import outcome_of
from mlops_llm.eval.report.source import ROWS, facts_of
from mlops_llm.eval.versus import compared
from mlops_llm.tracking import ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

_CLOSE = 1e-9


@dataclass(frozen=True)
class Recorded:
    """An evaluation of the record."""

    run: RunRow
    facts: Mapping[str, Any]
    """Its `evaluation.json`."""
    outcome: Outcome

    @property
    def ref(self) -> str:
        """The model as it was asked for."""
        return str(self.facts["model"]["name"])


def same(store: Store, identity: str, outcome: Outcome) -> RunRow | None:
    """A finished evaluation with the same model, rows and settings that found the same, if there is one.

    One in which all was asked anew is taken before others, since its seconds are known.

    Args:
        store: the record.
        identity: see `Plan.identity`.
        outcome: what was found now.
    """
    wanted = {named(each.name): each.value for each in outcome.scores if math.isfinite(each.value)}
    there = ledger.tagged(store, {IDENTITY: identity}, 20) if identity else []
    there = [each for each in there if each.status == "FINISHED" and _has(each, wanted)]
    return next((run for run in there if conditions.measured(run)), there[0] if there else None)


def evaluations(store: Store, weights: str) -> list[RunRow]:
    """Finished evaluations of weights on rows of a dataset, newest first.

    Args:
        store: the record.
        weights: their digest.
    """
    there = ledger.tagged(store, {"stage": "eval", "digest.weights": weights, IDENTITY: "%"}) if weights else []
    return [each for each in there if each.status == "FINISHED" and each.tags.get(ROWS)]


def _has(run: RunRow, wanted: Mapping[str, float]) -> bool:
    return all(
        math.isclose(run.metrics.get(name, math.inf), value, rel_tol=_CLOSE, abs_tol=_CLOSE) for name, value in wanted.items()
    )


def read(store: Store, refs: Sequence[str]) -> list[Recorded]:
    """Read evaluations.

    Args:
        store: the record.
        refs: ids or names of their runs, two or more.

    Raises:
        UserError: one is named twice, or holds no results.
    """
    rows = [ledger.find_run(store, each) for each in refs]
    found = []
    for place, (ref, row) in enumerate(zip(refs, rows, strict=True)):
        if row.id in [each.id for each in rows[:place]]:
            raise UserError(f"names {ref} twice", "op.runs", "name each once")
        facts = facts_of(store, row, ref)
        found.append(Recorded(row, facts, outcome_of(facts)))
    return found


def side_by_side(found: Sequence[Recorded], *, common: bool, seed: int = 0) -> Comparison:
    """Compare evaluations by their answers as they were given.

    Args:
        found: two or more.
        common: where they are of different rows, compare those that all of them asked.
        seed: of what is drawn.

    Raises:
        UserError: they are of different rows, and those in common are not wanted or there are none.
    """
    rows = [_rows(each) for each in found]
    shared = [key for key in rows[0] if all(key in each for each in rows)]
    lost = _lost(found, rows, len(shared))
    if lost and not (common and shared):
        raise UserError(lost, "op.runs", "op.common=true compares those" if shared else "evaluate models on the same rows")
    outcomes = [_kept(each, [keys[one] for one in shared], whole=not lost) for each, keys in zip(found, rows, strict=True)]
    models = [_model(place, each, outcome, found) for place, (each, outcome) in enumerate(zip(found, outcomes, strict=True), 1)]
    why = conditions.why_not({each.run.name: each.run for each in found})
    if not why:
        models = [replace(each, cost=timed(each.cost, one.run)) for each, one in zip(models, found, strict=True)]
    of = f"{len(shared)} rows in common of " if lost else ""
    first = found[0]
    tasks = ", ".join(dict.fromkeys(each.task for each in first.outcome.samples))
    return compared(
        models,
        f"{len(found)} evaluations on {of}{first.facts['dataset']['name'] if first.facts['dataset'] else tasks}",
        of + (first.outcome.dataset or tasks),
        latencies=dict.fromkeys((name for each in found for name in Latency.names if "latency" in each.facts["metrics"]), why),
        unequal=why,
        warnings=[*_other_settings(found), *([f"the evaluations {lost}; the others are left out"] if lost else [])],
        about={"dataset": of + first.outcome.dataset, "evaluations": ", ".join(each.run.name for each in found)},
        seed=seed,
    )


def _lost(found: Sequence[Recorded], rows: Sequence[Mapping[str, int]], shared: int) -> str:
    """What is to be said of rows that not all evaluations asked; nothing where there are none."""
    if all(len(each) == shared for each in rows):
        return ""
    asked = ", ".join(f"{each.run.name} {len(keys)}" for each, keys in zip(found, rows, strict=True))
    return f"are of different rows ({asked}; {shared} in common)"


def timed(cost: Cost, run: RunRow) -> Cost:
    """A cost with what an evaluation measured."""
    took = conditions.measured(run)
    memory = took.get("peak_gpu_memory_bytes", took.get("peak_memory_bytes"))
    return replace(
        cost,
        seconds=took.get("seconds_a_sample"),
        tokens=took.get("tokens_per_second"),
        memory=None if memory is None else int(memory),
    )


def _rows(one: Recorded) -> dict[str, int]:
    """What identifies each row -> its place among the samples; where texts were not kept, its number in that dataset.

    A row that is asked twice is paired with the same row of another evaluation, the first with the first.
    """
    data = one.facts["dataset"] or {}
    version = "" if one.facts["texts"] else str(data.get("digests", {}).get("canonical"))
    found, met = dict[str, int](), Counter[str]()
    for place, each in enumerate(one.outcome.samples):
        key = _key(each, version)
        met[key] += 1
        found[f"{key} {met[key]}"] = place
    return found


def _key(sample: Sample, version: str) -> str:
    if version:
        return digest.row({"task": sample.task, "place": sample.place, "of": version})
    # A benchmark's prompt has the model's chat template around it, and its items have numbers.
    asked = {"item": [sample.task, sample.place]} if sample.task else {"prompt": sample.prompt}
    return digest.row({**asked, "references": list(sample.references), "label": sample.label})


def _other_settings(found: Sequence[Recorded]) -> list[str]:
    """What is to be known of answers that were not asked alike."""
    told, first = [], found[0]
    for each in found[1:]:
        differ = [
            f"{part}.{name} {value} / {other}"
            for part in ("sampling", "benchmarks")
            for name, value in first.facts["settings"].get(part, {}).items()
            if value != (other := each.facts["settings"].get(part, {}).get(name)) and name != "batch_size"
        ]
        if differ:
            told.append(f"{first.run.name} and {each.run.name} were asked with other settings: {', '.join(differ)}")
    return told


def _kept(one: Recorded, places: Sequence[int], whole: bool) -> Outcome:
    """What was found of some samples, in an order that all evaluations share, with what totals are made of."""
    samples = [one.outcome.samples[place] for place in places]
    totals = _totals(one, samples)
    made = []
    for each in one.outcome.scores:
        values = [sample.scores[each.name] for sample in samples if math.isfinite(sample.scores.get(each.name, math.nan))]
        again = totals.get(each.name)
        if again and (not whole or math.isclose(again.value, each.value, rel_tol=1e-6)):
            made.append(replace(again, interval=each.interval if whole else again.interval))
        elif whole:
            made.append(each)
        elif values:
            sure = of_mean(values, each.most, each.least)
            made.append(
                replace(each, value=sum(values) / len(values), count=len(values), interval=sure, answered=None, seen=None)
            )
    return replace(one.outcome, samples=samples, scores=made, groups=() if not whole else one.outcome.groups)


def _totals(one: Recorded, samples: Sequence[Sample]) -> dict[str, Score]:
    """Scores that are no means, counted again from the answers; none where texts were not kept."""
    if not one.facts["texts"]:
        return {}
    component.load("mlops_llm.eval.metrics")
    items = [Item(each.answer, tuple(each.references), each.label, each.seconds, each.tokens, None, None) for each in samples]
    failed = [each.failure is not None and not each.answer for each in samples]
    metrics: dict[str, Metric] = {
        name: component.build("metric", name, told["settings"]) for name, told in one.facts["metrics"].items()
    }
    asked = {name: each for name, each in metrics.items() if each.needs is not Need.nothing and not each.needs.is_likelihood}
    again = scores.measured({name: each.settled(items) for name, each in asked.items()}, items, failed).scores if asked else []
    return {each.name: each for each in again if each.sums}


def _model(number: int, one: Recorded, outcome: Outcome, found: Sequence[Recorded]) -> Model:
    told = one.facts["model"]
    alike = sum(each.ref == one.ref for each in found) > 1
    judged = {key.removeprefix("perf/judge_"): value for key, value in one.run.metrics.items() if key.startswith("perf/judge_")}
    return Model(
        number,
        f"{one.ref} ({one.run.name})" if alike else one.ref,
        outcome,
        Cost(bytes=told.get("bytes"), judge=judged),
        told.get("digest", ""),
        told.get("trained_by", ""),
        int(told.get("step", 0)),
        told.get("tokenizer", ""),
        one.run.name,
    )
