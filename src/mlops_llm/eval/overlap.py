"""Which of the rows that are asked did the model meet in training, and what is a score without them: what is said of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from mlops_llm.errors import UserError
from mlops_llm.eval.ngrams import SHORTEST
from mlops_llm.eval.outcome import Seen
from mlops_llm.eval.questions import Question


@dataclass
class Overlap:
    """How rows that the model was trained on are looked for among those that are asked."""

    check: bool = True
    """Look for them in every dataset behind the model; false leaves it open."""
    words: int = 13
    """Length of the runs of words that are compared; of Chinese and the like 1.6 times as many characters."""
    threshold: float = 0.5
    """Share of a question's runs that one training row must have to count as the same; 1 is all of them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.words < SHORTEST:
            raise UserError(f"is {self.words}", "overlap.words", f"give a whole number from {SHORTEST}")
        if not 0 < self.threshold <= 1:
            raise UserError(f"is {self.threshold}", "overlap.threshold", "give a share above 0, at most 1")


class How(IntEnum):
    """In what a training row is the same as a question, from the weakest on."""

    words = 1
    """It has enough of the question's runs of words."""
    question = 2
    """It asks the same; width, case and blanks do not count."""
    answered = 3
    """It asks the same, and has the reference as its answer."""


_SAID = {How.words: "its words", How.question: "the question", How.answered: "question and answer"}


class Met(NamedTuple):
    """The training row that is most like a question."""

    how: How
    share: float
    """Of the question's runs of words; 1 where it is the same."""
    dataset: str
    """`sales_sft@v1.0`; without a version only its name."""
    where: str
    """Place of the row."""
    run: str
    """Name of the training."""

    def __str__(self) -> str:
        """For a person."""
        share = f" ({self.share:.0%} of them)" if self.how is How.words else ""
        return f"{_SAID[self.how]}{share} in {self.dataset}, {self.where}, trained by {self.run}"


@dataclass(frozen=True)
class Checked:
    """What is known of each question."""

    trained: Sequence[Met | None]
    """Row that the model was trained on."""
    chose: Sequence[Met | None]
    """Row that was not trained on, but by which the checkpoint was chosen."""
    datasets: Sequence[str]
    """What was searched."""
    unknown: Sequence[str]
    """What could not be, for a person."""
    influences: Sequence[str] = ()
    """Teachers and reward models, whose own data is not looked at."""

    @property
    def seen(self) -> list[bool | None]:
        """Whether the model was trained on each question; None where a part of its past is not known."""
        without = None if self.unknown else False
        return [True if met else without for met in self.trained]

    @property
    def reasons(self) -> list[str]:
        """Of each question: where it was met; empty where it was not."""
        return [str(met) if met else "" for met in self.trained]

    @property
    def share(self) -> float | None:
        """Share of the questions that the model was trained on, as far as its past is known; None where nothing of it is."""
        return sum(map(bool, self.trained)) / len(self.trained) if self.datasets and self.trained else None

    def metrics(self) -> dict[str, float]:
        """The shares as the record has them; empty where nothing is known."""
        if self.share is None:
            return {}
        return {"overlap/share": self.share, "overlap/chosen_by": _only(self.chose, self.trained) / len(self.trained)}

    def facts(self) -> dict[str, str]:
        """What a person wants to know."""
        told = {}
        if self.share is not None:
            kinds = Counter(_SAID[met.how] for met in self.trained if met)
            how = ", ".join(f"{count} by {name}" for name, count in kinds.most_common())
            chosen = _only(self.chose, self.trained)
            told["seen in training"] = (
                f"{sum(map(bool, self.trained))} of {len(self.trained)} items"
                + (f" ({how})" if how else "")
                + (f"; {chosen} more chose the checkpoint" if chosen else "")
            )
            told["compared with"] = ", ".join(self.datasets)
        if self.unknown:
            told["training data not known"] = "; ".join(self.unknown)
        if self.influences:
            told["not compared"] = f"data of {', '.join(self.influences)}"
        return told

    def table(self, questions: Sequence[Question], rows: Sequence[int], *, texts: bool = True) -> dict[str, list[Any]]:
        """The questions that were met, as a table.

        Args:
            questions: all of them.
            rows: their places in the dataset, from 0; the table counts from 1.
            texts: also say what they ask.
        """
        found = [
            (place + 1, one.text, use, _SAID[met.how], round(met.share, 4), met.dataset, met.where, met.run)
            for place, one, *both in zip(rows, questions, self.trained, self.chose, strict=True)
            for use, met in zip(("trained", "chose the checkpoint"), both, strict=True)
            if met
        ]
        names = ("row", "prompt", "use", "the same", "share", "dataset", "where", "run")
        kept = [column for column, name in enumerate(names) if texts or name != "prompt"]
        return {names[column]: [row[column] for row in found] for column in kept}


def _only(these: Sequence[Met | None], not_those: Sequence[Met | None]) -> int:
    return sum(bool(one) and not other for one, other in zip(these, not_those, strict=True))


def stamp(values: Sequence[float | None] | Callable[[Sequence[int]], float], seen: Sequence[bool | None]) -> Seen | None:
    """How a score depends on items that the model was trained on.

    Args:
        values: of each item, where the score is the mean of those that have one (no other counts); else what makes the score of
            the items at some places, such as `lambda places: bleu.score([items[each] for each in places]).total["bleu"]`.
        seen: of each item, from `Checked.seen`; empty where nobody looked.

    Returns:
        None where nothing was found and a part of the model's past is not known.
    """
    if not seen:
        return None
    if not callable(values):
        there = [(value, was) for value, was in zip(values, seen, strict=True) if value is not None]
        kept = [value for value, _ in there]
        return stamp(lambda places: math.fsum(kept[each] for each in places) / len(places), [was for _, was in there])
    if not any(each is not None for each in seen):
        return None
    rest = [place for place, was in enumerate(seen) if not was]
    return Seen(1 - len(rest) / len(seen), values(rest) if rest else None)
