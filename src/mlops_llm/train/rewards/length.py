"""Whether the answer is neither too short nor too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.data.read import Row
from mlops_llm.errors import UserError
from mlops_llm.train.reward import Answers, Ready, check_weight


@component("reward", "length")
@dataclass
class Length(Ready):
    """1 for an answer of `least` to `most` characters, falling in a straight line to 0 at `margin` characters outside.

    Blanks around the answer do not count, so that nothing is won with them. An empty answer has 0 unless least is 0: where
    margin is larger than least, the line falls over least characters.
    """

    weight: float = 1.0
    """Factor of this reward in the sum of all."""
    least: int = 1
    """Characters of the shortest answer with the full reward."""
    most: int = 400
    """Characters of the longest answer with the full reward."""
    margin: int = 100
    """Characters outside over which the reward falls to 0; 0 lets it drop at once."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_weight(self.weight, "length")
        if self.least < 0:
            raise UserError(f"is {self.least}", "reward.length.least", "give a number from 0")
        if self.most < max(self.least, 1):
            remedy = f"give a number from {max(self.least, 1)} (reward.length.least is {self.least})"
            raise UserError(f"is {self.most}", "reward.length.most", remedy)
        if self.margin < 0:
            raise UserError(f"is {self.margin}", "reward.length.margin", "give a number from 0")

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """Every row can be rewarded."""
        return [None] * len(rows)

    def score(self, answers: Answers) -> list[float | None]:
        """0 to 1 of each answer."""
        return [trapezoid(len(each.strip()), self.least, self.most, self.margin) for each in answers.completions]


def trapezoid(length: int, least: int, most: int, margin: int) -> float:
    """1 from `least` to `most`, 0 from `margin` outside on, and at 0 if `least` is not."""
    outside, over = (least - length, min(margin, least)) if length < least else (length - most, margin)
    if outside <= 0:
        return 1.0
    return max(0.0, 1 - outside / over) if over else 0.0
