"""What a comparison writes down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm.eval import comparison_shown
from mlops_llm.eval.comparison import Comparison, Model, Pair, Row, Together
from mlops_llm.eval.comparison_page import page
from mlops_llm.eval.conclusion import sentences
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.outcome import Score
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.eval.significance import LEVEL
from mlops_llm.record import Result, Run

PAGE, VALUES, TABLE = "comparison.html", "comparison.json", "comparison_samples.json"
"""Artifacts: the page for a person, all numbers, and every answer as a table."""


def recorded(found: Comparison, run: Run, lang: Lang, *, texts: bool = True, pages: Sequence[str] = ()) -> Result:
    """Record a comparison and say it; without `texts` only its numbers.

    Args:
        found: the comparison.
        run: open.
        lang: of the conclusion.
        texts: keep prompts and answers.
        pages: lines of where else to look.
    """
    for model in found.models:
        scores = [each for row in found.rows if (each := row.values[model.number - 1]) and math.isfinite(each.value)]
        numbers = {named(each.name).removeprefix(PREFIX): each.value for each in scores} | _costs(model)
        run.metrics({f"compare/{model.number}/{name}": value for name, value in numbers.items()}, 0)
    run.artifact(VALUES, json.dumps(values(found), ensure_ascii=False, indent=1, allow_nan=False))
    if found.samples:
        run.artifact(TABLE, columns(found, texts=texts))
    run.artifact(PAGE, page(found, lang, texts=texts))
    head = found.head
    best = head.best if head else None
    return Result(
        found.title,
        comparison_shown.facts(found),
        {
            "scores": {each.ref: {one.name: one.value for one in each.outcome.scores} for each in found.models},
            "best": {row.score.name: found.models[row.best - 1].ref for row in found.rows if row.best},
            "conclusion": sentences(found, lang),
        },
        [*comparison_shown.lines(found, lang, comparison_shown.SAMPLES if texts else 0), *pages],
        score_name=head.score.name if head and best else "",
    )


def values(found: Comparison) -> dict[str, Any]:
    """All numbers, for programs: what `comparison.json` holds."""
    return {
        "title": found.title,
        "dataset": found.dataset,
        "about": dict(found.about),
        "level": LEVEL,
        "comparisons": found.comparisons,
        "models": [_model(each) for each in found.models],
        "scores": [_row(each, found) for each in found.rows],
        "decides": found.head.score.name if found.head else None,
        "unequal": found.unequal,
        "conclusion": {lang.name: sentences(found, lang) for lang in Lang},
        "warnings": list(found.warnings),
        "samples": [_sample(each) for each in found.samples],
    }


def columns(found: Comparison, *, texts: bool = True) -> dict[str, list[Any]]:
    """Every sample with all answers as a table: column -> values."""
    first = [each.samples[0] for each in found.samples]
    made: dict[str, list[Any]] = {"row": [each.place + 1 for each in first]}
    if any(each.task for each in first):
        made["task"] = [each.task for each in first]
    if texts:
        made |= {"prompt": [each.prompt for each in first], "reference": ["\n".join(each.references) for each in first]}
    made["winner"] = [each.winner for each in found.samples]
    made["disagreement"] = [round(each.disagreement, 4) for each in found.samples]
    made["flips"] = [", ".join(each.flips) for each in found.samples]
    for place, model in enumerate(found.models):
        samples = [each.samples[place] for each in found.samples]
        if texts:
            made[f"{model.number} answer"] = [each.answer for each in samples]
        for name in dict.fromkeys(name for each in samples for name in each.scores):
            made[f"{model.number} {name}"] = [_finite(each.scores.get(name)) for each in samples]
        if any(each.failure for each in samples):
            made[f"{model.number} failure"] = [each.failure.kind.value if each.failure else None for each in samples]
    return made


def _costs(model: Model) -> dict[str, float]:
    """What compares of what a model takes."""
    cost = model.cost
    numbers = {"seconds_a_sample": cost.seconds, "tokens_per_second": cost.tokens, "peak_memory_bytes": cost.memory}
    return {f"perf/{name}": float(value) for name, value in numbers.items() if value is not None}


def _model(each: Model) -> dict[str, Any]:
    cost = each.cost
    return {
        "number": each.number,
        "ref": each.ref,
        "digest": each.digest,
        "run": each.run,
        "step": each.step,
        "evaluation": each.evaluation,
        "bytes": cost.bytes,
        "seconds_a_sample": cost.seconds,
        "tokens_per_second": cost.tokens,
        "peak_memory_bytes": cost.memory,
        "judge": dict(cost.judge),
        "failures": dict(each.outcome.failures),
    }


def _row(row: Row, found: Comparison) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": row.score.name,
        "higher_is_better": row.score.higher_is_better,
        "most": row.score.most,
        "signature": row.score.signature,
        "values": [_value(each) for each in row.values],
        "best": row.best,
    }
    if row.untested:
        return made | {"untested": row.untested}
    return made | {"resolves": list(found.resolved(row) or ()), "pairs": [_pair(each, found) for each in row.pairs]}


def _value(score: Score | None) -> Mapping[str, Any] | None:
    if score is None:
        return None
    low, high = score.interval or (None, None)
    return {"value": _finite(score.value), "low": _finite(low), "high": _finite(high), "samples": score.count}


def _pair(pair: Pair, found: Comparison) -> dict[str, Any]:
    low, high = pair.found.interval or (None, None)
    return {
        "first": pair.first,
        "second": pair.second,
        "difference": pair.found.difference,
        "low": low,
        "high": high,
        "p": pair.found.p,
        "p_holm": pair.adjusted,
        "significant": pair.is_significant,
        "samples": pair.found.count,
        "spread": pair.found.spread,
        "test": pair.found.test,
        "needed": found.needs(pair),
    }


def _sample(each: Together) -> dict[str, Any]:
    first = each.samples[0]
    return {
        "row": first.place + 1,
        "task": first.task,
        "by": each.by.name if each.by else None,
        "winner": each.winner,
        "disagreement": each.disagreement,
        "flips": list(each.flips),
        "scores": [{name: _finite(value) for name, value in one.scores.items()} for one in each.samples],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
