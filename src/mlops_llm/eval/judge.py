"""What a judge is: a component of the group `judge` that rates answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mlops_llm.inference.engine import Failure


@dataclass(frozen=True)
class Rated:
    """An answer that is to be rated."""

    place: int
    prompt: str
    answer: str
    references: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an answer."""

    scores: Mapping[str, float]
    """Dimension -> rating, the mean over repetitions."""
    comment: str = ""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Dimension -> standard deviation over repetitions."""
    flags: Sequence[str] = ()
    """Such as `repaired`: the judge's answer was no JSON as it came."""
    tokens: int = 0
    """Of all calls for it, in and out."""
    cost: float = 0.0
    """In the currency of the prices that were given."""


class Judge(Protocol):
    """Rates answers. Its settings are the component's fields."""

    @property
    def dimensions(self) -> Sequence[str]:
        """What is rated."""
        ...

    @property
    def most(self) -> int:
        """The best rating; the worst is 1."""
        ...

    def check(self) -> None:
        """See that it can be asked, before anything is read.

        Raises:
            UserError: address or key is missing, or the template has a placeholder that is none.
        """
        ...

    def version(self) -> str:
        """What a rating depends on besides the answer: a digest of model, template, dimensions and rules of reading."""
        ...

    def rate(self, answers: Sequence[Rated]) -> Iterator[tuple[int, Verdict | Failure]]:
        """Rate answers, several at once; each as soon as it is rated, with its place.

        Raises:
            UserError: no more can be rated (the key is refused, the quota or the budget used up).
        """
        ...

    def facts(self) -> Mapping[str, str]:
        """What was used so far, for a person: calls, tokens, cost, the model that really answered."""
        ...
