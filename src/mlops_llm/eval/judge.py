"""What a judge is: a component of the group `judge` that rates answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Failure

OVERALL = "overall"
"""One number of a judge's dimensions."""


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
    """Dimension -> standard deviation over repetitions; empty of a single one."""
    flags: Sequence[str] = ()
    """Such as `repaired`: the judge's answer was no JSON as it came."""
    tokens: int = 0
    """Of all calls for it, in and out; what was known from before needed none."""
    cost: float = 0.0
    """In the currency of the prices that were given."""


class Judge(Protocol):
    """Rates answers. Its settings are the component's fields."""

    name: str
    """Under which its template is kept in the record's registry of prompts."""

    @property
    def dimensions(self) -> Sequence[str]:
        """What is rated."""
        ...

    @property
    def least(self) -> int:
        """The lowest rating."""
        ...

    @property
    def most(self) -> int:
        """The best rating; the worst is 1, or 0 where the best is 1."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether every row must have a reference."""
        ...

    def higher_is_better(self, dimension: str) -> bool | None:
        """Which end of a dimension is the good one; None of what is neither."""
        ...

    def of_nothing(self) -> Mapping[str, float]:
        """The ratings of an answer that is none."""
        ...

    def overall(self, scores: Mapping[str, float]) -> float:
        """One number of the ratings of an answer, or of their means over all answers."""
        ...

    def check(self) -> None:
        """See that it can be asked, before anything is read; the server is not asked yet.

        Raises:
            UserError: address or key is missing, or the template has a placeholder that is none.
        """
        ...

    def reach(self) -> None:
        """See that the server is there and takes the key, before a model is loaded; it costs nothing.

        Raises:
            UserError: it does not answer, or refuses.
        """
        ...

    def text(self) -> str:
        """The template as it is kept in the record, with all that the judge is told besides."""
        ...

    def version(self) -> str:
        """What a rating depends on besides the answer: a digest of model, template, dimensions and rules of reading."""
        ...

    def rate(
        self, answers: Sequence[Rated], known: Answers | None = None, refresh: bool = False, ledger: Path | None = None
    ) -> Iterator[tuple[int, Verdict | Failure]]:
        """Rate answers, several at once; each as soon as it is rated, with its place, in any order.

        Args:
            answers: what is rated.
            known: what the judge said before; None keeps nothing.
            refresh: take nothing from there, but keep what it says.
            ledger: file of what each call took, so that a budget holds over several starts; None counts this one alone.

        Raises:
            UserError: no more can be rated (the key is refused, the quota used up, the server gone); a budget that is used up
                makes failures of the rest instead.
        """
        ...

    def knows(self, answers: Sequence[Rated], known: Answers) -> bool:
        """Whether all of these were rated before, so that the server is not needed."""
        ...

    def facts(self) -> Mapping[str, str]:
        """What was used so far, for a person: calls, tokens, cost, the model that really answered."""
        ...

    def numbers(self) -> Mapping[str, float]:
        """The same as numbers: calls, known, tokens_in, tokens_out, unread, attempts_more, and cost where there are prices."""
        ...


def conversation(turns: Sequence[Mapping[str, Any]]) -> str:
    """What an answer was asked, as a judge reads it: the text alone where it is one turn, else each turn with its role."""
    said = [str(turn.get("content") or "") or json.dumps(turn.get("tool_calls") or "", ensure_ascii=False) for turn in turns]
    if len(turns) == 1:
        return said[0]
    return "\n".join(f"[{turn.get('role')}] {text}" for turn, text in zip(turns, said, strict=True))


def verdict(row: Mapping[str, Any]) -> Verdict:
    """Make a verdict of its fields."""
    return Verdict(**row)
