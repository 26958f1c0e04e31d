"""How many units go so that a wanted share does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mlops_llm.errors import UserError
from mlops_llm.surgery.pruning.layout import Layout, Unit

NAMES = {Unit.neuron: "neurons", Unit.layer: "layers", Unit.group: "key/value groups"}


class Of(Enum):
    """What a ratio is a share of."""

    parameters = "parameters"
    """All numbers of the model."""
    unit = "unit"
    """The neurons, layers or key/value groups alone."""


@dataclass(frozen=True)
class Amount:
    """How much of a model goes."""

    unit: Unit
    units: int
    """That there are, of neurons and groups in each layer."""
    gone: int
    parameters: int
    """Of the whole model."""
    parameters_gone: int

    @property
    def share(self) -> float:
        """Of all parameters."""
        return self.parameters_gone / self.parameters

    @property
    def kept(self) -> int:
        """Units that stay."""
        return self.units - self.gone

    def __str__(self) -> str:
        """As a person reads it."""
        each = "" if self.unit is Unit.layer else " of each layer"
        return f"{self.gone} of {self.units} {NAMES[self.unit]}{each}: {self.share:.2%} of all parameters"


def check(ratio: float) -> None:
    """Check the range of what every pruning is told.

    Raises:
        UserError: it does not hold.
    """
    if not 0 < ratio < 1:
        raise UserError(f"is {ratio:g}", "op.ratio", "give a share between 0 and 1, such as 0.2")


def amount(layout: Layout, unit: Unit, ratio: float, of: Of, multiple: int = 1) -> Amount:
    """Choose how many units go: as near to the ratio as whole units come.

    Args:
        layout: the model's.
        unit: what goes.
        ratio: the share that is to go, between 0 and 1.
        of: what it is a share of.
        multiple: units that stay are a multiple of it, where there are at least twice as many and all are one.

    Raises:
        UserError: none would go, or none would stay; the smallest or largest ratio that works is named.
    """
    units, each = layout.units(unit), layout.parameters_of(unit)
    step = multiple if units % multiple == 0 and units >= 2 * multiple else 1
    wanted = ratio * (units if of is Of.unit else layout.parameters / each)
    gone = round(wanted / step) * step
    if units < 2 * step:
        raise UserError(f"leaves none: there is {units} of {NAMES[unit]}", "op.ratio", "take another operation")
    if not step <= gone < units:
        least, most = (_ratio(count, units, each * count / layout.parameters, of) for count in (step, units - step))
        what, remedy = f"leaves none of {units} {NAMES[unit]}", f"the largest that works is op.ratio={most}"
        if gone < step:
            what = f"is less than half of what goes at once ({step} of {units} {NAMES[unit]})"
            remedy = f"the smallest that works is op.ratio={least}"
        raise UserError(f"{ratio:g} of {'the unit' if of is Of.unit else 'all parameters'} {what}", "op.ratio", remedy)
    return Amount(unit, units, gone, layout.parameters, gone * each)


def named(layout: Layout, layers: list[int]) -> Amount:
    """The amount that goes with named layers.

    Raises:
        UserError: one is not there or named twice, or none would stay.
    """
    there = layout.layers
    twice = next((each for each in layers if layers.count(each) > 1), None)
    odd = next((each for each in layers if not 0 <= each < there), None)
    if odd is not None:
        raise UserError(f"names layer {odd}, and there are 0 to {there - 1}", "op.layers", "name others")
    if twice is not None:
        raise UserError(f"names layer {twice} twice", "op.layers", "name each once")
    if len(layers) >= there:
        raise UserError(f"names all {there} layers, which leaves none", "op.layers", f"name at most {there - 1}")
    gone = len(layers)
    return Amount(Unit.layer, there, gone, layout.parameters, gone * layout.parameters_of(Unit.layer))


def _ratio(count: int, units: int, share: float, of: Of) -> str:
    return f"{count / units if of is Of.unit else share:.3g}"
