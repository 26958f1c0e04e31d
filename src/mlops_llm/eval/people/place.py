"""Whether people rate an answer by where it was shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from mlops_llm.eval.interval import wilson
from mlops_llm.eval.people.words import LEAST, MOST
from mlops_llm.eval.significance import of_means

HEADS = ("times", "win", "tie", "loss", "rate", "95 % interval", "first - others", "95 % interval", "p")
"""Of a table with `Placed.cells`."""


@dataclass(frozen=True)
class Placed:
    """Answers that were shown first, beside the others to the same prompt.

    Answers stand in an order that is drawn for each prompt and rater, so that by itself neither place has the better ones.
    """

    count: int
    """Prompts, of each rater, with ratings of the first answer and of another one."""
    win: int
    """Those in which the first one has a better rating than the others' mean."""
    tie: int
    difference: float
    """Mean of the first one's rating minus the others'."""
    interval: tuple[float, float] | None
    """Its 95 %."""
    p: float
    """Of a difference as large by the drawn order alone, see `significance.of_means`."""

    @property
    def rate(self) -> float:
        """Share of the prompts in which the first one is rated higher; a tie counts half."""
        return (self.win + self.tie / 2) / self.count

    @property
    def rate_interval(self) -> tuple[float, float]:
        """95 %, Wilson's."""
        return wilson(self.win + self.tie / 2, self.count)

    def cells(self) -> list[Any]:
        """For a person, under `HEADS`."""
        low, high = self.rate_interval
        apart = f"{self.interval[0]:.2f} to {self.interval[1]:.2f}" if self.interval else ""
        loss = self.count - self.win - self.tie
        rated = [self.count, self.win, self.tie, loss, f"{self.rate:.2f}", f"{low:.2f} to {high:.2f}"]
        return [*rated, f"{self.difference:+.2f}", apart, "< 0.001" if self.p < 0.001 else f"{self.p:.3f}"]

    def values(self) -> dict[str, Any]:
        """For programs."""
        rate = {"rate": self.rate, "rate_interval": self.rate_interval}
        return {**asdict(self), "loss": self.count - self.win - self.tie, **rate}


def placed(sheets: Iterable[Mapping[int, Sequence[tuple[int, float]]]]) -> Placed | None:
    """Compare places.

    Args:
        sheets: of each rater: row -> place among the answers, from 1, and rating of each of them.

    Returns:
        None where no rater has seen two answers to a prompt.
    """
    first, others = list[float](), list[float]()
    for sheet in sheets:
        for shown in sheet.values():
            begin = [rating for place, rating in shown if place == 1]
            later = [rating for place, rating in shown if place > 1]
            if begin and later:
                first.append(begin[0])
                others.append(fmean(later))
    if not first:
        return None
    (found,) = of_means([first], [others], [(LEAST, MOST)])
    win, tie = sum(a > b for a, b in zip(first, others, strict=True)), sum(a == b for a, b in zip(first, others, strict=True))
    return Placed(len(first), win, tie, found.difference, found.interval, found.p)
