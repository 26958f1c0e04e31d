"""What a metric is: a component of the group `metric` that says how good answers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from mlops_llm.errors import UserError
from mlops_llm.record import Grid


class Need(Enum):
    """What a metric compares an answer with."""

    nothing = "nothing"
    reference = "reference"
    """At least one good answer."""
    label = "label"
    """The class that the row belongs to."""
    likelihood = "likelihood"
    """How likely the model finds the reference, given the prompt; no answer is sampled for it."""
    whole = "whole"
    """How likely the model finds prompt and reference together; no answer is sampled for it."""

    @property
    def is_likelihood(self) -> bool:
        """Whether the model is given the reference instead of being asked for it."""
        return self in (Need.likelihood, Need.whole)


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a text."""

    logprobs: Sequence[float]
    """Of each token that counts, in nats."""
    bytes: int
    """Length in UTF-8 of the text that counts."""


@dataclass(frozen=True)
class Item:
    """An answer with what is known of its row."""

    answer: str
    references: Sequence[str] = ()
    """Good answers; the nearest counts."""
    label: str | None = None
    seconds: float = 0.0
    """How long the answer took."""
    tokens: int = 0
    """Length of the answer."""
    whole: Likelihood | None = None
    """Of the prompt and the reference together, where a metric needs it."""
    wanted: Likelihood | None = None
    """Of the reference alone, given the prompt."""


@dataclass(frozen=True)
class Sums:
    """A total that is no mean, but follows from sums over answers, as BLEU does from counted n-grams."""

    counts: Any
    """Answers x numbers; NaN of an answer that does not count."""
    total: Callable[[Any], float]
    """From the numbers, added up, to the value."""


@dataclass(frozen=True)
class Scores:
    """What a metric says of some answers."""

    total: Mapping[str, float]
    """Name -> value over all answers; not always the mean of the single ones."""
    items: Mapping[str, Sequence[float]]
    """Name -> value of each answer, in their order; a total that is no matter of single answers has none."""
    signature: str
    """How it was counted: values of different signatures do not compare."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Name -> 95 % interval, where it does not follow from the single values (see `eval.interval`)."""
    tables: Mapping[str, Grid] = field(default_factory=dict)
    """File name -> more to look at, such as a confusion table."""
    sums: Mapping[str, Sums] = field(default_factory=dict, compare=False)
    """Name -> what a total that is no mean is made of."""


class Metric(Protocol):
    """Says how good answers are. Its settings are the component's fields."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its values."""
        ...

    @property
    def higher_is_better(self) -> bool | None:
        """Which end of all its values is the good one; None of what is neither."""
        ...

    @property
    def most(self) -> float | None:
        """The largest value there is; None where there is none."""
        ...

    @property
    def needs(self) -> Need:
        """What each row must have."""
        ...

    def settled(self, items: Sequence[Item]) -> Metric:
        """The same with all that it takes from rows, such as classes, taken from these: so it counts alike in any part of them.

        Raises:
            UserError: as `check` does.
        """
        ...

    def check(self, items: Sequence[Item]) -> None:
        """See that answers to these rows can be scored, before any is given: what the items say of answers does not count.

        Raises:
            UserError: a setting is missing, there are no rows, or one lacks what is needed; its number is named, from 1.
        """
        ...

    def score(self, items: Sequence[Item]) -> Scores:
        """Score answers.

        Raises:
            UserError: as `check` does.
        """
        ...


class Ready:
    """What every metric has that needs nothing but its settings and what `needs` says."""

    def check(self: Metric, items: Sequence[Item]) -> None:
        """See that every row has what is needed."""
        check(items, self.needs)

    def settled(self: Metric, items: Sequence[Item]) -> Metric:
        """Nothing is taken from rows."""
        return self


def check(items: Sequence[Item], need: Need = Need.reference) -> None:
    """See that every answer has something to be compared with. An answer may be empty, a reference may not.

    Raises:
        UserError: there are no answers, or one lacks what is needed; its number is named, from 1.
    """
    if not items:
        raise UserError("there are no answers to score", remedy="give at least one")
    for place, item in enumerate(items, 1):
        if isinstance(item.references, str):
            raise ValueError("the references of an answer are a list of texts")
        missing = ""
        if (need is Need.reference or need.is_likelihood) and not (
            item.references and all(each.strip() for each in item.references)
        ):
            missing = "an empty reference" if item.references else "no reference"
        elif need is Need.label and not (item.label or "").strip():
            missing = "no label"
        if missing:
            raise UserError(f"answer {place} of {len(items)} has {missing}", remedy="give it one, or leave its row out")
