"""From evaluations to a comparison: samples are paired, differences tested, costs set side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from mlops_llm.eval.comparison import WHOLE, Comparison, Model, Pair, Row, Together
from mlops_llm.eval.outcome import Sample, Score
from mlops_llm.eval.significance import Paired, holm, of_means, of_totals


def compared(
    models: Sequence[Model],
    title: str,
    dataset: str,
    *,
    latencies: Mapping[str, str] | None = None,
    unequal: str = "",
    warnings: Sequence[str] = (),
    about: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Set models side by side.

    Args:
        models: two or more, with their outcomes on the same rows.
        title: of the comparison.
        dataset: what was asked, for a person.
        latencies: name of a score that is seconds -> why the models' do not compare; empty where they do.
        unequal: why speeds and memory do not compare; empty where they do.
        warnings: what a person must know besides.
        about: how models were asked.
        seed: of what is drawn.
    """
    latencies = latencies or {}
    untested = _incomparable(models) | dict.fromkeys(latencies, "speed is measured, not drawn")
    rows = [
        replace(row, values=[None] * len(models), untested=why) if (why := latencies.get(row.score.name)) else row
        for row in tested(models, untested, seed)
    ]
    told = [*_warnings(models), *warnings]
    return Comparison(title, dataset, models, rows, together(models, rows), told, unequal, about or {})


def tested(models: Sequence[Model], untested: dict[str, str] | None = None, seed: int = 0) -> list[Row]:
    """Every score of the models, with the differences of all pairs, tested together.

    Means are compared by their samples, totals by what they are made of; one of which neither is known is not compared, nor is
    one without a good end.

    Args:
        models: with their outcomes.
        untested: name of a score -> why it is not compared.
        seed: of what is drawn.
    """
    untested, rows, of_rows = untested or {}, list[Row](), list[tuple[int, int, int, Paired]]()
    means = list[tuple[int, int, int]]()
    columns = [{each.name: each for each in model.outcome.scores} for model in models]
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(name) for column in columns]
        row = Row(next(each for each in values if each), values)
        why = untested.get(name, "") or _why_not(row, models)
        rows.append(replace(row, untested=why))
        for one, other in [] if why else combinations(row.numbers, 2):
            kinds = [_values(models[each - 1], values[each - 1]) for each in (one, other)]
            if all(each is not None for each in kinds):
                means.append((len(rows) - 1, one, other))
            else:
                of_rows.append((len(rows) - 1, one, other, _of_totals(values[one - 1], values[other - 1], seed)))
    if means:
        first = [_values(models[one - 1], rows[place].values[one - 1]) for place, one, _ in means]
        second = [_values(models[other - 1], rows[place].values[other - 1]) for place, _, other in means]
        ranges = [(rows[place].score.least, rows[place].score.most) for place, _, _ in means]
        of_rows += [(*each, one) for each, one in zip(means, of_means(first, second, ranges, seed), strict=True)]
    adjusted = holm([one.p for *_, one in of_rows])
    pairs = [(place, Pair(one, other, each, p)) for (place, one, other, each), p in zip(of_rows, adjusted, strict=True)]
    return [
        replace(row, pairs=sorted((each for at, each in pairs if at == place), key=lambda each: (each.first, each.second)))
        for place, row in enumerate(rows)
    ]


def together(models: Sequence[Model], rows: Sequence[Row]) -> list[Together]:
    """The samples of all models, the ones first on which they lie furthest apart."""
    good = [each.score for each in rows if each.score.higher_is_better is not None and each.pairs]
    good.sort(key=lambda each: each.name != WHOLE)
    ranges = {each.name: _range(each, models) for each in good}
    made = [_together(samples, good, ranges) for samples in zip(*(each.outcome.samples for each in models), strict=True)]
    return sorted(made, key=lambda each: (-each.disagreement, not each.flips))


def _together(samples: Sequence[Sample], good: Sequence[Score], ranges: dict[str, float]) -> Together:
    by = next((each for each in good if all(math.isfinite(one.scores.get(each.name, math.nan)) for one in samples)), None)
    flips = [
        each.name
        for each in good
        if each.most == 1 and {one.scores[each.name] for one in samples if each.name in one.scores} == {0.0, 1.0}
    ]
    if by is None:
        return Together(samples, None, None, 0.0, flips)
    values = [one.scores[by.name] * (1 if by.higher_is_better else -1) for one in samples]
    top = max(values)
    winner = values.index(top) + 1 if values.count(top) == 1 else None
    return Together(samples, by, winner, (top - min(values)) / ranges[by.name], flips)


def _range(score: Score, models: Sequence[Model]) -> float:
    """How far values of a score can lie apart, or do."""
    if score.most is not None:
        return score.most - score.least
    there = [each.scores.get(score.name, math.nan) for model in models for each in model.outcome.samples]
    values = [each for each in there if math.isfinite(each)]
    return max(values) - min(values) or 1.0 if values else 1.0


def _why_not(row: Row, models: Sequence[Model]) -> str:
    if row.score.higher_is_better is None:
        return "no end of it is the good one"
    if any(each is None for each in row.values):
        return "not every model has it"
    if not all(each and math.isfinite(each.value) for each in row.values):
        return "a value is not finite"
    # A chat template is the model's own: it is a part of what is compared.
    if len({re.sub(r"\|template:[^|]*", "", each.signature) for each in row.values if each}) > 1:
        return "it was not counted alike"
    counted = [_counted(model, score) for model, score in zip(models, row.values, strict=True)]
    if any(each is None for each in counted):
        return "it is no matter of single samples"
    if not all((one & other).any() for one, other in combinations(counted, 2)):
        return "two models have it of different samples"
    return ""


def _counted(model: Model, score: Score | None) -> Any:
    """Which samples a score is of; None where its samples are not known."""
    import numpy

    if score and score.sums:
        return numpy.isfinite(score.sums.counts).all(1)
    values = _values(model, score)
    return None if values is None else numpy.isfinite(values)


def _values(model: Model, score: Score | None) -> Any:
    """Of each sample, NaN where it has none; None where the score is no mean of them."""
    import numpy

    if score is None:
        return None
    values = numpy.array([each.scores.get(score.name, math.nan) for each in model.outcome.samples], dtype=float)
    there = values[numpy.isfinite(values)]
    is_mean = len(there) > 0 and math.isclose(float(there.mean()), score.value, rel_tol=1e-6, abs_tol=1e-9)
    return values if is_mean and score.sums is None else None


def _of_totals(one: Score | None, other: Score | None, seed: int) -> Paired:
    assert one and other and one.sums and other.sums
    return of_totals(one.sums.counts, other.sums.counts, one.sums.total, seed)


def _incomparable(models: Sequence[Model]) -> dict[str, str]:
    """Perplexities of different tokens say nothing."""
    if len({each.tokenizer for each in models}) == 1:
        return {}
    return {"perplexity": "the models have different tokenizers; bits_per_byte compares"}


def _warnings(models: Sequence[Model]) -> list[str]:
    told = [f"{each.ref}: {warning}" for each in models for warning in each.outcome.warnings]
    for one, other in combinations(models, 2):
        if one.digest and one.digest == other.digest:
            told.append(f"{one.name} and {other.name} are the same model")
    return list(dict.fromkeys(told))
