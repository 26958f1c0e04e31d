"""Whether an answer is the wanted solution, as rewards and metrics both decide it."""

from __future__ import annotations

from enum import Enum

from mlops_llm.data import solutions
from mlops_llm.data.solutions import Solution


class Counts(Enum):
    """What counts as the answer."""

    any = "any"
    marked = "marked"
    boxed = "boxed"


def grade(completion: str, wanted: Solution, counts: Counts = Counts.any) -> bool:
    """Whether an answer ends with the wanted solution."""
    if solutions.unclosed(completion):
        return False
    boxes = solutions.boxed(completion)
    said = solutions.marked(completion) if counts is not Counts.boxed else boxes[-1] if boxes else None
    if said is None and counts is not Counts.any:
        return False
    found = solutions.parse(completion if said is None else said)
    if found is not None and (found.number is not None or found.equals(wanted)):
        return found.equals(wanted)
    if counts is not Counts.any or wanted.number is None:
        return False
    number = solutions.last_number(completion) if said is None else solutions.spoken(said)
    return number is not None and number.equals(wanted)
