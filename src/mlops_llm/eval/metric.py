"""What a metric is: a component of the group `metric` that compares answers with what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from mlops_llm.errors import UserError


@dataclass(frozen=True)
class Scores:
    """What a metric says of some answers."""

    total: Mapping[str, float]
    """Name -> value over all answers; not always the mean of the single ones."""
    items: Mapping[str, Sequence[float]]
    """Name -> value of each answer, in their order; the names are those of `total`."""
    signature: str
    """How it was counted: values of different signatures do not compare."""


class Metric(Protocol):
    """Compares answers with references. Its settings are the component's fields."""

    names: ClassVar[tuple[str, ...]]
    """Names of its values."""
    higher_is_better: ClassVar[bool]
    """Which end of all its values is the good one."""

    def score(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        """Compare each answer with its references, one or more; the nearest counts.

        Raises:
            UserError: there is nothing to compare (see `check`).
        """
        ...


def check(answers: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """See that every answer has something to be compared with. An answer may be empty, a reference may not.

    Raises:
        UserError: there are no answers, or one has no reference, or an empty one; its number is named, from 1.
        ValueError: there are not as many lists of references as answers.
    """
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers, {len(references)} lists of references")
    if not answers:
        raise UserError("there are no answers to score", remedy="give at least one")
    for place, wanted in enumerate(references, 1):
        if isinstance(wanted, str):
            raise ValueError("the references of an answer are a list of texts")
        if not wanted or not all(each.strip() for each in wanted):
            what = "an empty reference" if wanted else "no reference"
            raise UserError(f"answer {place} of {len(answers)} has {what}", remedy="give it one, or leave its row out")
