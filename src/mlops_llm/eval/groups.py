"""Scores of the rows that share a value of their metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mlops_llm.eval.metric import Item, Metric
from mlops_llm.eval.outcome import Group, Sample
from mlops_llm.eval.scores import counting

MOST = 50
"""Values of a key at most; a key with more, such as a number of the row, groups nothing."""


def groups(samples: Sequence[Sample], items: Sequence[Item], metrics: Iterable[Metric]) -> list[Group]:
    """Scores by each key and value of the metadata, in the order of the keys and by value.

    Metrics are counted anew over the rows of a group, so that BLEU is that of the group's corpus. Other scores that samples
    have, such as a judge's, are means over those that have them. Left out are keys with one value or over 50, and keys of which
    each row has a value of its own; rows without a key are in none of its groups.

    Args:
        samples: with metadata.
        items: what metrics see of each sample, in the same order.
        metrics: see above.
    """
    several = list(metrics)
    return [Group(key, value, len(rows), _scores(rows, samples, items, several)) for key, value, rows in _shared(samples)]


def _shared(samples: Sequence[Sample]) -> Iterator[tuple[str, str, list[int]]]:
    """Each key and value that groups samples, with their places."""
    for key in dict.fromkeys(key for sample in samples for key in sample.metadata):
        places: dict[str, list[int]] = {}
        for place, sample in enumerate(samples):
            if key in sample.metadata:
                places.setdefault(sample.metadata[key], []).append(place)
        if 1 < len(places) <= MOST and any(len(each) > 1 for each in places.values()):
            yield from ((key, value, rows) for value, rows in sorted(places.items()))


def _scores(
    rows: Sequence[int], samples: Sequence[Sample], items: Sequence[Item], metrics: Sequence[Metric]
) -> dict[str, float]:
    scores = dict[str, float]()
    of_group, failed = [items[place] for place in rows], [not samples[place].answer for place in rows]
    for metric in metrics:
        if counted := counting(metric, of_group, failed):
            scores |= metric.score([of_group[place] for place in counted]).total
    names = {name for metric in metrics for name in metric.names}
    others: dict[str, list[float]] = {}
    for place in rows:
        for name, value in samples[place].scores.items():
            if name not in names:
                others.setdefault(name, []).append(value)
    return scores | {name: sum(values) / len(values) for name, values in others.items()}
