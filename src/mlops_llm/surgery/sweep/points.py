"""The points of a sweep: a method with settings, and what a person calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.sweep.search import At

RATIO = "ratio"
"""The share of each model, instead of a setting of the method's own."""


@dataclass(frozen=True)
class Space:
    """What is varied, and what stays."""

    method: str
    """Name of the merge."""
    settings: Mapping[str, Any]
    """Of the method, the same at all points."""
    over: str
    """`ratio`, or a setting of the method."""
    models: int

    def merging(self, at: At) -> Merging:
        """The method at a place.

        Raises:
            UserError: the method refuses it.
        """
        return built(self.method, {**self.settings, **self.varied(at)})

    def varied(self, at: At) -> dict[str, Any]:
        """The settings that a place stands for: of a ratio the weights, that of the first model being the ratio itself."""
        if self.over != RATIO:
            return {self.over: at[0]}
        return {"weights": list(at) if len(at) > 1 else [at[0], round(1.0 - at[0], 6)]}

    def weights(self, at: At) -> list[float] | None:
        """The share of each model; None where a setting is varied."""
        return list(self.varied(at)["weights"]) if self.over == RATIO else None

    def said(self, at: At) -> str:
        """What a person calls a place: `ratio 0.6`, `shares 0.5, 0.3, 0.2`, `density 0.8`."""
        if len(at) > 1:
            return f"shares {', '.join(f'{each:g}' for each in at)}"
        return f"{self.over} {at[0]:g}"

    def end(self, at: At) -> int | None:
        """Which model, from 0, a place is itself; None where it is a merge."""
        weights = self.weights(at)
        return weights.index(1.0) if weights and 1.0 in weights and self.merging(at).has_ends else None

    def at_end(self, model: int) -> At | None:
        """The place that a model is itself; None where none is."""
        at = tuple(float(each == model) for each in range(self.models))
        at = at if self.models > 2 else at[:1]
        return at if self.over == RATIO and self.end(at) == model else None


def built(method: str, settings: Mapping[str, Any]) -> Merging:
    """A merge by name and settings.

    Raises:
        UserError: there is no such merge, it has no such setting, or refuses a value.
    """
    merges = {name: cls for name, cls in component.groups().get("op", {}).items() if issubclass(cls, Merging)}
    merges = {name: cls for name, cls in merges.items() if name.startswith("merge_")}
    if method not in merges:
        remedy = f"one of: {', '.join(merges)}"
        raise UserError(f"'{method}' is no merge that can be swept{component.near(method, merges)}", "op.method", remedy)
    checked = {name: _checked(merges[method], method, name, value) for name, value in settings.items()}
    try:
        made: Merging = component.build("op", method, checked)
    except UserError as error:
        where = error.where.replace("op.", "op.settings.", 1) if error.where.startswith("op.") else "op.settings"
        raise UserError(error.what, where, error.remedy) from error
    return made


def _checked(cls: type[Merging], method: str, name: str, value: Any) -> Any:
    """A setting's value as its default's kind.

    Raises:
        UserError: the method has no such setting, or it is of another kind.
    """
    known = {each.name: each for each in dataclasses.fields(cls)}
    where = f"op.settings.{name}"
    if name not in known:
        remedy = f"it has: {', '.join(each for each in known if each not in _OURS)}"
        raise UserError(f"is no setting of {method}{component.near(name, known)}", where, remedy)
    if name in _OURS:
        raise UserError("is not for the points of a sweep", where, "leave it out")
    default = known[name].default
    if isinstance(default, bool):
        is_right = isinstance(value, bool)
    elif isinstance(default, float):
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if is_right else value
    else:
        return value
    if not is_right:
        raise UserError(f"is {value}", where, f"give {'true or false' if isinstance(default, bool) else 'a number'}")
    return value


_OURS = ("dry_run", "save_log", "save_intermediate", "keep_adapter")
"""Settings that say nothing of the numbers of a result."""


def varies(method: str, over: str, settings: Mapping[str, Any], models: Sequence[str]) -> Space:
    """What is varied.

    Raises:
        UserError: the method cannot, or what is varied is settled too.
    """
    sample = type(built(method, {}))
    fields = {each.name: each for each in dataclasses.fields(sample)}
    if over != RATIO:
        numbers = [name for name, each in fields.items() if isinstance(each.default, float)]
        if over not in numbers:
            remedy = f"one of: {', '.join([RATIO, *numbers])}"
            raise UserError(f"'{over}' is no number of {method}{component.near(over, numbers)}", "op.over", remedy)
    settled = [name for name in (("weights", "t") if over == RATIO else (over,)) if name in settings]
    if settled:
        raise UserError("is what the sweep varies", f"op.settings.{settled[0]}", "leave it out")
    return Space(method, dict(settings), over, len(models))
