"""From answers to scores with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlops_llm.eval.interval import of_mean
from mlops_llm.eval.judge import OVERALL, Judge, Verdict
from mlops_llm.eval.metric import Item, Likelihood, Metric, Need, Sums
from mlops_llm.eval.outcome import Score, Seen
from mlops_llm.eval.overlap import stamp
from mlops_llm.eval.questions import Question
from mlops_llm.inference.engine import Failure, Generation
from mlops_llm.record import Grid


@dataclass
class Scored:
    """Scores of one set of answers."""

    scores: list[Score] = field(default_factory=list)
    items: dict[str, Sequence[float | None]] = field(default_factory=dict)
    """Name of a score -> value of each answer, in order; None of one that has none."""
    tables: dict[str, Grid] = field(default_factory=dict)


def items(
    questions: Sequence[Question],
    answers: Sequence[Generation | Failure] | None,
    likelihoods: Sequence[tuple[Likelihood | None, Likelihood]] | None,
) -> list[Item]:
    """What metrics see; an answer that failed is an empty one, so that no failure raises a score."""
    made = []
    for place, one in enumerate(questions):
        answer = answers[place] if answers else None
        given = answer if isinstance(answer, Generation) else None
        whole, wanted = likelihoods[place] if likelihoods else (None, None)
        made.append(
            Item(
                given.text if given else "",
                one.references,
                one.label,
                answer.seconds if answer else 0.0,
                given.tokens if given else 0,
                whole,
                wanted,
            )
        )
    return made


def measured(
    metrics: Mapping[str, Metric],
    found: Sequence[Item],
    failed: Sequence[bool],
    seen: Sequence[bool | None] = (),
) -> Scored:
    """Scores of all metrics.

    Args:
        metrics: by name.
        found: the answers.
        failed: which of them are none.
        seen: whether the model was trained on each; empty where that is not known.
    """
    return joined([_measured(name, metric, found, failed, seen) for name, metric in metrics.items()])


def _measured(name: str, metric: Metric, found: Sequence[Item], failed: Sequence[bool], seen: Sequence[bool | None]) -> Scored:
    """Scores of one metric; none where no answer counts for it."""
    places = counting(metric, found, failed)
    if not places:
        return Scored()
    scores = metric.score([found[place] for place in places])
    lacks = metric.needs is not Need.nothing and not metric.needs.is_likelihood and any(failed) and not all(failed)
    alone = metric.score([one for one, is_none in zip(found, failed, strict=True) if not is_none]) if lacks else None
    # What was learned by heart helps an answer to be right, not to be short or quick.
    known = _seen(metric, found, places, scores.total, seen) if seen and metric.needs is not Need.nothing else {}
    made = Scored(tables={f"{name}/{file}": table for file, table in scores.tables.items()})
    for each, value in scores.total.items():
        values = scores.items.get(each)
        made.scores.append(
            Score(
                each,
                value,
                len(places),
                metric.higher_is_better,
                scores.intervals.get(each) or (of_mean(values, metric.most) if values else None),
                scores.signature,
                metric.most,
                alone.total.get(each) if alone else None,
                known.get(each),
                sums=_placed(scores.sums.get(each), places, len(found)),
            )
        )
        if values:
            by_place = dict(zip(places, values, strict=True))
            made.items[each] = [by_place.get(place) for place in range(len(found))]
    return made


def _placed(sums: Sums | None, places: Sequence[int], count: int) -> Sums | None:
    """What a total is made of, for every answer."""
    if sums is None or len(places) == count:
        return sums
    import numpy

    counts = numpy.full((count, sums.counts.shape[1]), numpy.nan)
    counts[list(places)] = sums.counts
    return Sums(counts, sums.total)


def counting(metric: Metric, found: Sequence[Item], failed: Sequence[bool]) -> list[int]:
    """Places of the answers that count for a metric.

    A failed one counts as an empty answer, but how long an answer was, or took, is no matter of those that are none; nor is
    a likelihood that the engine could not tell.
    """
    if metric.needs.is_likelihood:
        return [place for place, one in enumerate(found) if one.wanted and one.wanted.logprobs]
    whole = metric.needs is not Need.nothing or metric.higher_is_better is True
    return [place for place in range(len(found)) if whole or not failed[place]]


def _seen(
    metric: Metric, found: Sequence[Item], places: Sequence[int], totals: Mapping[str, float], seen: Sequence[bool | None]
) -> dict[str, Seen | None]:
    """Name of a total -> how it depends on what the model was trained on."""
    rest = [place for place in places if not seen[place]]
    others = totals if len(rest) == len(places) else metric.score([found[place] for place in rest]).total if rest else {}

    def of_rest(name: str) -> Seen | None:
        return stamp(lambda _: others.get(name, math.nan), [seen[place] for place in places])

    return {name: of_rest(name) for name in totals}


def rated(
    verdicts: Sequence[Verdict | Failure], failed: Sequence[bool], judge: Judge, seen: Sequence[bool | None] = ()
) -> Scored:
    """Scores of a judge: each dimension, and one number of all.

    An answer that is none has the worst rating, so that no failure of the model raises a score; one that the judge failed to
    rate has none.

    Args:
        verdicts: of each answer.
        failed: which answers are none.
        judge: who rated.
        seen: whether the model was trained on each; empty where that is not known.
    """
    made, signature, nothing = Scored(), f"judge:{judge.version()[:12]}", Verdict(judge.of_nothing())
    given = [nothing if is_none else each for each, is_none in zip(verdicts, failed, strict=True)]
    for name in (*judge.dimensions, OVERALL):
        values = [_rating(each, name, judge) if isinstance(each, Verdict) else None for each in given]
        better = True if name == OVERALL else judge.higher_is_better(name)
        there = [value for value in values if value is not None]
        made.items[f"judge/{name}"] = values
        if there:
            alone = [value for value, is_none in zip(values, failed, strict=True) if value is not None and not is_none]
            answered = sum(alone) / len(alone) if alone and any(failed) else None
            known, mean, sure = stamp(values, seen), sum(there) / len(there), of_mean(there, judge.most, judge.least)
            made.scores.append(
                Score(f"judge/{name}", mean, len(there), better, sure, signature, judge.most, answered, known, judge.least)
            )
    return made


def _rating(verdict: Verdict, name: str, judge: Judge) -> float:
    return float(judge.overall(verdict.scores) if name == OVERALL else verdict.scores[name])


def joined(parts: Sequence[Scored]) -> Scored:
    """All scores of several kinds."""
    made = Scored()
    for each in parts:
        made.scores += each.scores
        made.items |= each.items
        made.tables |= each.tables
    return made
