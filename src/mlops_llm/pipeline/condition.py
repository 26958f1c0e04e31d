"""What must hold for a stage to be done: two values compared, which may be numbers of other stages."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlops_llm.component import near
from mlops_llm.console import number
from mlops_llm.errors import UserError
from mlops_llm.pipeline.words import HANDOFF

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = "write A > B, where each is a number, a word or stage:NAME/METRIC, and B may have + 0.01 behind it"


@dataclass(frozen=True)
class Condition:
    """A comparison."""

    left: str
    sign: str
    right: str
    margin: float = 0.0
    """Added to the right side."""

    @property
    def handoffs(self) -> list[tuple[str, str]]:
        """Stage and number of each side that is one."""
        return [(found[1], found[2] or "") for side in (self.left, self.right) if (found := HANDOFF.fullmatch(side))]

    def holds(self, known: Callable[[str, str], float | str]) -> tuple[bool, str]:
        """Whether it holds, and that in words.

        Args:
            known: from stage and name of a number to the number.

        Raises:
            UserError: words are compared by size, or a number is not known.
        """
        left, right = (_value(side, known) for side in (self.left, self.right))
        if self.margin:
            right = _number(right) + self.margin
        if self.sign not in ("==", "!=") and (isinstance(left, str) or isinstance(right, str)):
            left, right = _number(left), _number(right)
        verdict = _SIGNS[self.sign](left, right)
        sides = [f"{side} {number(value)}" if HANDOFF.fullmatch(side) else number(value) for side, value in
                 ((self.left, left), (self.right, right))]  # fmt: skip
        return verdict, _said(self.sign, verdict, *sides)


def _said(sign: str, verdict: bool, left: str, right: str) -> str:
    if sign in ("==", "!="):
        equal = verdict is (sign == "==")
        return f"{left if left != right else 'it'} is {'' if equal else 'not '}{right}"
    return f"{left} is {'' if verdict else 'not '}{sign} {right}"


def read(text: str, where: str) -> Condition:
    """A condition.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"\s*(\S+)\s*(>=|<=|==|!=|>|<)\s*(\S+?)\s*(?:([+-])\s*(\d+(?:\.\d*)?(?:e-?\d+)?))?\s*", text)
    if not found:
        raise UserError(f"'{text}' is no condition", where, _FORM)
    bare = next((side for side in (found[1], found[3]) if (of := HANDOFF.fullmatch(side)) and not of[2]), None)
    if bare:
        raise UserError(f"'{bare}' names no number", where, f"write {bare}/METRIC, such as {bare}/score/bleu")
    if found[2] not in ("==", "!="):
        for side in (found[1], found[3]):
            if not HANDOFF.fullmatch(side):
                _number(side, where)
    margin = float(found[5]) * (-1 if found[4] == "-" else 1) if found[5] else 0.0
    return Condition(found[1], found[2], found[3], margin)


def metric(name: str, known: dict[str, float], where: str) -> float:
    """A number of a run.

    Raises:
        UserError: it has none of this name; the nearest is named.
    """
    if name not in known:
        there = ", ".join(sorted(each for each in known if not each.startswith(("perf/", "system/")))[:12])
        raise UserError(f"has no number '{name}'{near(name, known)}", where, f"it has: {there or 'none'}")
    return known[name]


def _value(side: str, known: Callable[[str, str], float | str]) -> float | str:
    found = HANDOFF.fullmatch(side)
    if found:
        return known(found[1], found[2] or "")
    try:
        return float(side)
    except ValueError:
        return side


def _number(value: float | str, where: str = "when") -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"'{value}' is no number", where, _FORM) from error
