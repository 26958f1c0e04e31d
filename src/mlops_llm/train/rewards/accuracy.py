"""Whether the answer is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.data import solutions
from mlops_llm.data.grading import Counts, grade
from mlops_llm.data.read import Row
from mlops_llm.errors import UserError
from mlops_llm.train.reward import Answers, Ready, check_weight


@component("reward", "accuracy")
@dataclass
class Accuracy(Ready):
    r"""1 where the answer agrees with the row's `solution`, 0 where it does not.

    Numbers in many spellings (3/4, 75%, 1,299, 三百二十五, \frac{1}{2}) are compared by value, other solutions as texts, in
    which width, case and blanks do not count. The last \boxed{…} or #### counts, then the last 答案是 or "the answer is".
    A \boxed{ that does not close is no answer: it was cut off. Not understood is algebra: 1+x and x+1 differ.
    """

    weight: float = 1.0
    """Factor of this reward in the sum of all."""
    counts: Counts = Counts.any
    """What counts as the answer. any: what is marked, the number within a marked phrase (答案是一共 8 个), or the last number
    of an answer that marks none; marked: nothing but what is marked; boxed: nothing but what stands in a LaTeX box."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_weight(self.weight, "accuracy")

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """Why a row's solution cannot be compared.

        Raises:
            UserError: that of no row can.
        """
        found = [_problem(row) or None for row in rows]
        if rows and all(found):
            remedy = "give rows of the kind grpo: {prompt, solution}"
            raise UserError(f"no row has a solution to compare (the first: {found[0]})", "reward.accuracy", remedy)
        return found

    def score(self, answers: Answers) -> list[float | None]:
        """1 or 0; None where the row's solution cannot be compared."""
        found: list[float | None] = []
        for completion, row in zip(answers.completions, answers.rows, strict=True):
            wanted = None if _problem(row) else solutions.parse(str(row["solution"]))
            found.append(None if wanted is None else float(grade(completion, wanted, self.counts)))
        return found


def _problem(row: Row) -> str:
    solution = row.get("solution")
    if solution is None or isinstance(solution, bool) or not isinstance(solution, str | int | float):
        return "has no 'solution'" if solution is None else f"'solution' is of type {type(solution).__name__}, not a text"
    said = solutions.problem(str(solution))
    return f"'solution': {said}" if said else ""
