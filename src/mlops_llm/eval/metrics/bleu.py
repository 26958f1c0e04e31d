"""BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.metric import Item, Need, Ready, Scores
from mlops_llm.eval.sacre import scored
from mlops_llm.eval.words import tokenization

Tokenize = Enum("Tokenize", {"auto": "auto", "zh": "zh", "13a": "13a", "char": "char"})
"""How sacrebleu splits texts."""


@component("metric", "bleu")
@dataclass
class Bleu(Ready):
    """BLEU (Papineni et al. 2002) as sacrebleu counts it, 0 to 100.

    The total is that of the corpus, not the mean, with a bootstrap interval. The values of single answers count only the
    lengths of n-grams that they have, so that a short answer is not always 0; the total of a corpus that has no n-gram of full
    length is 0.
    """

    names: ClassVar[tuple[str, ...]] = ("bleu",)
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 100.0
    needs: ClassVar[Need] = Need.reference

    n: int = 4
    """Longest n-grams."""
    tokenize: Tokenize = Tokenize.auto
    """How texts are split; auto decides by the references: zh for Chinese, char for Japanese and Thai, else 13a."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.n < 1:
            raise UserError(f"is {self.n}", "metric.bleu.n", "give a whole number from 1")

    def settled(self, items: Sequence[Item]) -> Bleu:
        """With the way to split texts that fits these references."""
        if self.tokenize is not Tokenize.auto:
            return self
        return replace(self, tokenize=Tokenize(tokenization(each for item in items for each in item.references)))

    def score(self, items: Sequence[Item]) -> Scores:
        """BLEU of the corpus and of each answer.

        Raises:
            UserError: there is nothing to compare.
        """
        self.check(items)
        from sacrebleu.metrics.bleu import BLEU

        split = self.settled(items).tokenize.name
        whole = BLEU(tokenize=split, max_ngram_order=self.n, force=True)
        single = BLEU(tokenize=split, max_ngram_order=self.n, effective_order=True, force=True)
        return scored("bleu", whole, single, items, "" if self.n == 4 else f"|n:{self.n}")
