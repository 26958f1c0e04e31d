"""ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.eval.metric import Item, Need, Ready, Scores
from mlops_llm.eval.words import words

_THEIRS = ("rouge1", "rouge2", "rougeL")


@component("metric", "rouge")
@dataclass
class Rouge(Ready):
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004): F1 of shared words, of pairs of words, and of the longest common sequence.

    As the package rouge_score counts it, 0 to 1; the total is the mean. Chinese and Japanese count by character, other scripts
    by word, without stemming.
    """

    names: ClassVar[tuple[str, ...]] = ("rouge_1", "rouge_2", "rouge_l")
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 1.0
    needs: ClassVar[Need] = Need.reference

    def score(self, items: Sequence[Item]) -> Scores:
        """The three values of each answer, and their means; of several references the best counts, for each value by itself.

        Raises:
            UserError: there is nothing to compare.
        """
        self.check(items)
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(list(_THEIRS), tokenizer=_Words())
        rows = [scorer.score_multi(list(item.references), item.answer) for item in items]
        found = {ours: [row[theirs].fmeasure for row in rows] for theirs, ours in zip(_THEIRS, self.names, strict=True)}
        total = {name: sum(values) / len(values) for name, values in found.items()}
        return Scores(total, found, "f1|stem:no|words:nfkc,lower,characters of unspaced scripts")


class _Words:
    """Our words as rouge_score takes a tokenizer: its own knows nothing but ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)
