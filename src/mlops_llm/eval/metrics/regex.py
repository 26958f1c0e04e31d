"""Whether a pattern is found in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.metric import Item, Need, Ready, Scores, check
from mlops_llm.eval.metrics.exact_match import ExactMatch

_SECONDS = 2.0
"""Longest search in one answer; patterns such as (a+)+b would take years."""


@component("metric", "regex")
@dataclass
class Regex(Ready):
    r"""1 where a pattern is found in the answer, else 0; the total is the share.

    If the pattern has a group, what the first group of the last match holds must also be one of the references, as
    exact_match compares them: '答案是(\d+)'. Without a group no reference is needed.
    """

    names: ClassVar[tuple[str, ...]] = ("regex",)
    higher_is_better: ClassVar[bool | None] = True
    most: ClassVar[float | None] = 1.0

    pattern: str = ""
    r"""What is looked for, in the syntax of Python's module regex; (?i) at its begin ignores case, (?s) lets . match lines."""

    def __post_init__(self) -> None:
        """Check the pattern."""
        self._compiled()

    @property
    def needs(self) -> Need:
        """References where a group is compared with them."""
        return Need.reference if self._compiled().groups else Need.nothing

    def check(self, items: Sequence[Item]) -> None:
        """See that there is a pattern, and what it is compared with.

        Raises:
            UserError: there is not.
        """
        if not self.pattern:
            raise UserError("is empty", "metric.regex.pattern", r"give one, such as metric.regex.pattern='答案是(\d+)'")
        check(items, self.needs)

    def score(self, items: Sequence[Item]) -> Scores:
        """1 or 0 of each answer, and their mean.

        Raises:
            UserError: there is no pattern or nothing to compare, or the search takes too long.
        """
        self.check(items)
        looked, same = self._compiled(), ExactMatch().same
        found = []
        for place, item in enumerate(items, 1):
            try:
                matches = list(looked.finditer(item.answer, timeout=_SECONDS))
            except TimeoutError as error:
                what = f"takes over {_SECONDS:.0f} s in answer {place} of {len(items)}"
                raise UserError(what, "metric.regex.pattern", "write it without repetitions within repetitions") from error
            said = (matches[-1][1] or "") if matches and looked.groups else ""
            found.append(float(bool(matches) and (not looked.groups or any(same(said, each) for each in item.references))))
        return Scores({"regex": sum(found) / len(found)}, {"regex": found}, f"pattern:{self.pattern}")

    def _compiled(self) -> Any:
        import regex

        try:
            return regex.compile(self.pattern)
        except regex.error as error:
            raise UserError(f"is no pattern ({error})", "metric.regex.pattern", "mend it, or put \\ before signs") from error
