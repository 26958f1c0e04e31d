"""How it goes, while it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mlops_llm.eval.metric import Item, Need
from mlops_llm.eval.plan import Plan
from mlops_llm.inference.engine import Generation

R = TypeVar("R")


class Mean(Generic[R]):
    """The mean of a value over the results so far, told after each."""

    def __init__(self, name: str, value: Callable[[int, R], float]) -> None:
        """Begin with none."""
        self._name, self._value, self._total, self._count = name, value, 0.0, 0

    def __call__(self, place: int, result: R) -> str:
        """Add a result and say the mean."""
        self._total, self._count = self._total + self._value(place, result), self._count + 1
        return f"{self._name} {self._total / self._count:.3g}"


def of_answers(plan: Plan) -> Callable[[int, Generation], str] | None:
    """The live mean of the first metric that looks at single answers; of a corpus's metric, that of its single values."""
    metric: Any = next((one for one in plan.metrics.values() if one.needs in (Need.reference, Need.label)), None)
    if metric is None or plan.questions is None:
        return None
    asked, name = plan.questions.asked, metric.names[0]
    first = asked[0]
    of_all = metric.score([Item(first.references[0] if first.references else "", first.references, first.label)]).sums

    def value(place: int, given: Generation) -> float:
        item = Item(given.text, asked[place].references, asked[place].label, given.seconds, given.tokens)
        found = metric.score([item])
        return float(found.items[name][0] if name in found.items else found.total[name])

    return Mean(f"{name} of single answers" if name in of_all else name, value)
