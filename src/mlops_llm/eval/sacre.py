"""Corpus scores from the counts of single answers, as sacrebleu's metrics make both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mlops_llm.eval.interval import Intervals, bootstrap
from mlops_llm.eval.metric import Item, Scores, Sums


def scored(name: str, whole: Any, single: Any, items: Sequence[Item], more: str) -> Scores:
    """The score of a corpus, its interval, and that of each answer, 0 to 100; texts are counted once for all of them.

    The interval is the bootstrap's over answers (Koehn 2004): their counts are drawn, added up and scored as a corpus.

    Args:
        name: of the score.
        whole: sacrebleu's metric that scores the corpus.
        single: the one that scores an answer from the same counts.
        items: answers with their references, of any number.
        more: what sacrebleu's signature does not say.
    """
    import numpy

    most = max(len(item.references) for item in items)
    # sacrebleu wants one list for the first references, one for the second ..., with None where there is none.
    streams = [[item.references[n] if n < len(item.references) else None for item in items] for n in range(most)]
    counted = whole._extract_corpus_statistics([item.answer for item in items], streams)
    counts = numpy.array(counted, dtype=float)

    def value(metric: Any, added: Any) -> float:
        return min(100.0, float(metric._compute_score_from_stats([int(each) for each in added]).score))

    def resampled(places: Any) -> float:
        return value(whole, numpy.bincount(places, minlength=len(items)) @ counts)

    total, each = value(whole, counts.sum(0)), [value(single, row) for row in counted]
    intervals = Intervals({name: partial(bootstrap, len(items), resampled)} if len(items) > 1 else {})
    sums = {name: Sums(counts, partial(value, whole))}
    return Scores({name: total}, {name: each}, str(whole.get_signature()) + more, intervals, sums=sums)
