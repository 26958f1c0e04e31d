"""Whether the answer is the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.data.solutions import value
from mlops_llm.eval.metric import Item, Need, Ready, Scores
from mlops_llm.eval.words import plain


@component("metric", "exact_match")
@dataclass
class ExactMatch(Ready):
    """1 where the answer is one of the references, else 0; the total is the share.

    Width does not count (NFKC). The whole answer counts: none is looked for in a sentence or a box.
    """

    names: ClassVar[tuple[str, ...]] = ("exact_match",)
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 1.0
    needs: ClassVar[Need] = Need.reference

    ignore_case: bool = True
    """Upper and lower case are the same."""
    ignore_blanks: bool = True
    """Runs of blanks are one blank, and none around the text, beside punctuation or between Chinese characters."""
    ignore_number_forms: bool = True
    """Texts that are numbers are compared by value: 1,299 and 1299.0, 50% and 0.5, 八 and 8; units make it another text."""

    def score(self, items: Sequence[Item]) -> Scores:
        """1 or 0 of each answer, and their mean.

        Raises:
            UserError: there is nothing to compare.
        """
        self.check(items)
        found = [float(any(self.same(item.answer, each) for each in item.references)) for item in items]
        rules = {"case": self.ignore_case, "blanks": self.ignore_blanks, "number forms": self.ignore_number_forms}
        ignored = ",".join(["width", *(name for name, is_ignored in rules.items() if is_ignored)])
        return Scores({"exact_match": sum(found) / len(found)}, {"exact_match": found}, f"ignored:{ignored}")

    def same(self, one: str, other: str) -> bool:
        """Whether two texts are the same."""
        if plain(one, self.ignore_case, self.ignore_blanks) == plain(other, self.ignore_case, self.ignore_blanks):
            return True
        if not self.ignore_number_forms:
            return False
        values = value(one), value(other)
        return values[0] is not None and values[0] == values[1]
