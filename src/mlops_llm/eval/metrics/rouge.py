"""ROUGE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.eval.metric import Scores, check
from mlops_llm.eval.words import words


@component("metric", "rouge")
@dataclass
class Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004): F1 of shared words, of pairs of words, and of the longest common sequence.

    0 to 1; the total is the mean. Chinese and Japanese count by character, other scripts by word, without stemming. Of texts in
    ASCII the values are those of the package rouge_score, whose own tokenizer knows nothing else.
    """

    names: ClassVar[tuple[str, ...]] = ("rouge_1", "rouge_2", "rouge_l")
    higher_is_better: ClassVar[bool] = True

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        """The three values of each answer, and their means; of several references the best counts, for each value by itself.

        Raises:
            UserError: there is nothing to compare.
        """
        check(answers, references)
        rows = []
        for answer, wanted in zip(answers, references, strict=True):
            said = words(answer)
            rows.append([max(values) for values in zip(*(_three(said, words(each)) for each in wanted), strict=True)])
        items = {name: [row[place] for row in rows] for place, name in enumerate(self.names)}
        total = {name: sum(values) / len(values) for name, values in items.items()}
        return Scores(total, items, "f1|stem:no|words:nfkc,lower,characters of unspaced scripts")


def _three(said: Sequence[str], wanted: Sequence[str]) -> tuple[float, float, float]:
    return overlap(said, wanted, 1), overlap(said, wanted, 2), f1(common(said, wanted), len(said), len(wanted))


def overlap(said: Sequence[str], wanted: Sequence[str], n: int) -> float:
    """ROUGE-N: F1 of the n-grams that two sequences share, each counted as often as both have it."""
    one, other = (Counter(tuple(each[place : place + n]) for place in range(len(each) - n + 1)) for each in (said, wanted))
    return f1((one & other).total(), one.total(), other.total())


def f1(shared: int, said: int, wanted: int) -> float:
    """Harmonic mean of shared / said and shared / wanted; 0 where nothing is shared."""
    return 2 * shared / (said + wanted) if shared else 0.0


def common(said: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): a bit of `row` is 0 where the length grows."""
    places: dict[str, int] = {}
    for place, word in enumerate(said):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(said)) - 1
    row = full
    for word in wanted:
        here = row & places.get(word, 0)
        row = ((row + here) | (row - here)) & full
    return len(said) - row.bit_count()
