"""chrF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.metric import Item, Need, Ready, Scores
from mlops_llm.eval.sacre import scored


@component("metric", "chrf")
@dataclass
class Chrf(Ready):
    """chrF (Popović 2015): F-score of shared n-grams of characters, as sacrebleu counts it, 0 to 100.

    It needs no words, so that it suits any script. The total is that of the corpus, not the mean, with a bootstrap interval.
    """

    names: ClassVar[tuple[str, ...]] = ("chrf",)
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 100.0
    needs: ClassVar[Need] = Need.reference

    characters: int = 6
    """Longest n-grams of characters."""
    words: int = 0
    """Longest n-grams of words; 2 makes it chrF++, for scripts with blanks."""
    beta: int = 2
    """How much more recall weighs than precision."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("characters", 1), ("words", 0), ("beta", 1)):
            if getattr(self, name) < least:
                raise UserError(f"is {getattr(self, name)}", f"metric.chrf.{name}", f"give a whole number from {least}")

    def score(self, items: Sequence[Item]) -> Scores:
        """The chrF of the corpus and of each answer.

        Raises:
            UserError: there is nothing to compare.
        """
        self.check(items)
        from sacrebleu.metrics.chrf import CHRF

        counting = CHRF(char_order=self.characters, word_order=self.words, beta=self.beta)
        return scored("chrf", counting, counting, items, "" if self.beta == 2 else f"|beta:{self.beta}")
