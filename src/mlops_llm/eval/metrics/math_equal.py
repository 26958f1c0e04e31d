"""Whether the answer comes to the reference's solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.data import solutions
from mlops_llm.data.grading import Counts, grade
from mlops_llm.errors import UserError
from mlops_llm.eval.metric import Item, Need, Ready, Scores, check


@component("metric", "math_equal")
@dataclass
class MathEqual(Ready):
    r"""1 where the answer comes to the same as one of the references, else 0; the total is the share.

    Graded as the reward `accuracy` does: numbers in many spellings (3/4, 75%, 1,299, 三百二十五, \frac{1}{2}) by value, other
    solutions as texts. Of a reference that is a whole derivation its marked solution counts (#### 72, \boxed{72}, 答案是 72).
    """

    names: ClassVar[tuple[str, ...]] = ("math_equal",)
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 1.0
    needs: ClassVar[Need] = Need.reference

    counts: Counts = Counts.any
    """What counts as the answer. any: what is marked, the number within a marked phrase (答案是一共 8 个), or the last number
    of an answer that marks none; marked: nothing but what is marked; boxed: nothing but what stands in a LaTeX box."""

    def check(self, items: Sequence[Item]) -> None:
        """See that every reference is a solution that can be compared.

        Raises:
            UserError: one is not.
        """
        check(items, self.needs)
        for place, item in enumerate(items, 1):
            for each in item.references:
                if said := solutions.problem(each):
                    remedy = "write one number or one short text, or leave its row out"
                    raise UserError(f"the reference of answer {place} of {len(items)}: {said}", remedy=remedy)

    def score(self, items: Sequence[Item]) -> Scores:
        """1 or 0 of each answer, and their mean.

        Raises:
            UserError: there is nothing to compare.
        """
        self.check(items)
        found = [float(any(self._right(item.answer, each) for each in item.references)) for item in items]
        return Scores({"math_equal": sum(found) / len(found)}, {"math_equal": found}, f"counts:{self.counts.name}")

    def _right(self, answer: str, reference: str) -> bool:
        wanted = solutions.parse(reference)
        return wanted is not None and grade(answer, wanted, self.counts)
