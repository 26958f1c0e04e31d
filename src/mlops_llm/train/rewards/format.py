"""Whether the answer has the wanted shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from mlops_llm.component import component
from mlops_llm.data import solutions
from mlops_llm.data.read import Row
from mlops_llm.errors import UserError, first_line
from mlops_llm.train.reward import Answers, Ready, check_weight

LONGEST = 20_000
"""Characters of an answer that a pattern is looked for in."""
PATIENCE = 0.2
"""Seconds for one answer. Some patterns, (a+)+$ for one, take time without end, which no look at the pattern can tell."""


@component("reward", "format")
@dataclass
class Format(Ready):
    r"""1 where the answer has the wanted shape, else 0: by default a \boxed{…} that holds something, and none left open.

    A pattern that takes too long on an answer tells nothing about it, so that the answer has no such reward.
    """

    weight: float = 1.0
    """Factor of this reward in the sum of all."""
    pattern: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    r"""Regular expression that must match somewhere instead, e.g. '^<think>.+</think>\s*\S'; a dot matches line ends, too."""

    def __post_init__(self) -> None:
        """Check the range and the pattern."""
        check_weight(self.weight, "format")
        if self.pattern is not None:
            _compiled(self.pattern)

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """Every row can be rewarded."""
        return [None] * len(rows)

    def score(self, answers: Answers) -> list[float | None]:
        """1 or 0; None where the pattern takes too long."""
        if self.pattern is None:
            return [float(has_box(each)) for each in answers.completions]
        compiled = _compiled(self.pattern)
        return [_matches(compiled, each[:LONGEST]) for each in answers.completions]


def has_box(text: str) -> bool:
    r"""Whether a text holds a \boxed{…} with something in it, and none that does not close."""
    return any(each.strip() for each in solutions.boxed(text)) and not solutions.unclosed(text)


def _compiled(pattern: str) -> Any:
    # Python's own `re` cannot be given a time limit.
    import regex

    if not pattern:
        raise UserError("is empty", "reward.format.pattern", "leave it out, or write a regular expression")
    try:
        return regex.compile(pattern, regex.DOTALL)
    except (regex.error, RecursionError, OverflowError) as error:
        remedy = "mend it, or put a backslash before ( ) [ ] { } that stand for themselves"
        raise UserError(f"is no regular expression: {first_line(error)}", "reward.format.pattern", remedy) from error


def _matches(compiled: Any, text: str) -> float | None:
    try:
        return float(compiled.search(text, timeout=PATIENCE) is not None)
    except TimeoutError:
        return None
