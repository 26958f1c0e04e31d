"""How an evaluation set says to be scored."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlops_llm import component
from mlops_llm.data.read import Source
from mlops_llm.data.ref import version_of
from mlops_llm.errors import UserError
from mlops_llm.eval.metric import Metric

JUDGE = "judge"


@dataclass(frozen=True)
class Method:
    """What a dataset's version says of its evaluation."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    """By name; none where it names none."""
    judge: bool = False
    """A judge is to rate the answers; which one, the command says."""


def ability(source: Source) -> str:
    """What a dataset's version says that it asks for (`op=add op.ability=`); empty of one that is not registered."""
    version = version_of(source)
    return version.ability if version else ""


def of(source: Source) -> Method:
    """The method that is stored with a dataset (`op=add op.method=`); nothing of one that is not registered.

    Raises:
        UserError: it names a metric that there is not.
    """
    version = version_of(source)
    if version is None:
        return Method()
    component.load("mlops_llm.eval.metrics")
    there = component.groups()["metric"]
    names = [name for name in version.method if name != JUDGE]
    for name in names:
        if name not in there:
            what = f"is to be scored by '{name}', which is no metric{component.near(name, [*there, JUDGE])}"
            raise UserError(what, f"{version.name}@{version.label}", "say how it is to be scored: metric=[...] or judge=NAME")
    return Method({name: component.build("metric", name) for name in names}, JUDGE in version.method)
