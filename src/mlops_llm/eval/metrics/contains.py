"""Whether the answer names the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.eval.metric import Item, Need, Ready, Scores
from mlops_llm.eval.words import named, plain


@component("metric", "contains")
@dataclass
class Contains(Ready):
    """1 where one of the references stands in the answer, else 0; the total is the share.

    Width (NFKC), case and blanks do not count. A long answer names more: look at the metric `length` too.
    """

    names: ClassVar[tuple[str, ...]] = ("contains",)
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 1.0
    needs: ClassVar[Need] = Need.reference

    whole_words: bool = True
    """A reference must stand there as whole words: 8 is not in 18, nor is rapist in therapist; Chinese has no such bounds."""
    all: bool = False
    """All references must be there, not only one."""

    def score(self, items: Sequence[Item]) -> Scores:
        """1 or 0 of each answer, and their mean.

        Raises:
            UserError: there is nothing to compare.
        """
        self.check(items)
        enough = all if self.all else any
        found = [float(enough(self._in(item.answer, each) for each in item.references)) for item in items]
        signature = f"ignored:width,case,blanks|words:{'whole' if self.whole_words else 'any'}"
        return Scores(
            {"contains": sum(found) / len(found)}, {"contains": found}, f"{signature}|of:{'all' if self.all else 'any'}"
        )

    def _in(self, answer: str, reference: str) -> bool:
        return bool(named(answer, [reference])) if self.whole_words else plain(reference) in plain(answer)
