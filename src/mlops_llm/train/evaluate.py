"""Settings of the answers that are scored while training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from mlops_llm import component
from mlops_llm.errors import UserError

PREFIX = "score/"
"""What the names of scores begin with in the record."""


@dataclass
class Evaluate:
    """Answers to a few questions, scored every some steps; the training's own numbers stay as they are."""

    every: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Steps between two times that answers are scored, besides the start and the last step; null or 0 scores none."""
    dataset: Optional[str] = None  # noqa: UP045
    """Rows with what is asked and what a good answer is; null takes the held-out part."""
    samples: int = 10
    """Rows to answer, from the first on."""
    metric: list[str] = field(default_factory=lambda: ["bleu", "rouge"])
    """Metrics by which answers are scored; a name that is none shows those that there are."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""

    def __post_init__(self) -> None:
        """Check ranges and names."""
        if self.every is not None and self.every < 0:
            raise UserError(f"is {self.every}", "evaluate.every", "give a number of steps, or 0 to score none")
        for name in ("samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"evaluate.{name}", "give a whole number from 1")
        if self.every:
            self._check_metrics()
        elif self.every is None:
            self._refuse_unused()

    def _refuse_unused(self) -> None:
        for each in fields(self):
            default = each.default_factory() if callable(each.default_factory) else each.default
            if getattr(self, each.name) != default:
                remedy = "score them: evaluate.every=50"
                raise UserError("is given, but no answers are scored", f"evaluate.{each.name}", remedy)

    def _check_metrics(self) -> None:
        there = _there()
        fitting = ", ".join(_fitting(there))
        if not self.metric:
            raise UserError("is empty", "evaluate.metric", f"name one or more of: {fitting}")
        for name in self.metric:
            if name not in there:
                what = f"there is no metric '{name}'{component.near(name, there)}"
                raise UserError(what, "evaluate.metric", f"one of: {fitting}")
            if not _fitting([name]):
                what = f"'{name}' is not told by answers and references alone, which are all that a training has"
                raise UserError(what, "evaluate.metric", f"one of: {fitting}")
        if len(set(self.metric)) < len(self.metric):
            raise UserError(f"names one twice: {', '.join(self.metric)}", "evaluate.metric", "name each once")

    def metrics(self) -> dict[str, Any]:
        """The chosen metrics (`eval.metric.Metric`) by name."""
        _there()
        return {name: component.build("metric", name) for name in self.metric}

    def scores(self) -> dict[str, bool]:
        """Name in the record of each score -> whether higher is better; none where no answers are scored."""
        if not self.every:
            return {}
        return {f"{PREFIX}{name}": one.higher_is_better for one in self.metrics().values() for name in one.names}


def _there() -> list[str]:
    component.load("mlops_llm.eval.metrics")
    return sorted(component.groups()["metric"])


def _fitting(names: Iterable[str]) -> list[str]:
    """The metrics that answers and references tell, with no setting needed, and that say which end is the good one."""
    from mlops_llm.eval.metric import Need

    there = {name: component.build("metric", name) for name in names}
    return [
        name for name, one in there.items() if one.needs is Need.reference and one.names and one.higher_is_better is not None
    ]
