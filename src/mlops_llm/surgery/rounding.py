"""How far quantized weights may be from those that they were made of: a bound for each form, and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mlops_llm.surgery.planning import Check

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDINGS = 4
"""Of the numbers, their scale, their quotient and their product, each in the format of the scale."""
_FURTHER = 6.0
"""Times the error of rounding to the nearest that methods may reach which make up for it in a layer's outputs: mostly it is 1.4
times, in the worst of SmolLM2's 210 layers 3.1 times."""
_LENGTHS = 1.5
"""Of that error, the most by which they may change the lengths of groups: there 0.8, with scales mixed up 2 or more."""
_NOT_NOTHING = 0.95
"""Relative error that no layer may reach: one of zeros has 1, one of other numbers about 1.4."""


class Off(NamedTuple):
    """How far a tensor is from what it was made of."""

    found: float
    most: float
    said: str
    """What is counted: `steps`."""

    @property
    def share(self) -> float:
        """Of what is allowed; above 1 it is too much, and so is what is no number."""
        if not math.isfinite(self.found):
            return math.inf
        return self.found / self.most if self.most else (math.inf if self.found else 0.0)


class Bound(Protocol):
    """What a form allows."""

    def off(self, wanted: Tensor, found: Tensor) -> Off:
        """Compare.

        Args:
            wanted: the tensor that was turned, (rows, columns) of a layer.
            found: what lies in the folder, of the same shape.
        """
        ...


class Same:
    """No difference, but for the number format of what is found."""

    def off(self, wanted: Tensor, found: Tensor) -> Off:
        """Whether all numbers are the same."""
        import torch

        return Off(0.0 if torch.equal(wanted.to(found.dtype), found) else math.inf, 0.0, "steps")


@dataclass(frozen=True)
class Nearest:
    """Rounded to the nearest whole number of steps: half a step, and what rounding the scale itself does.

    The step is told from the wanted numbers, never from the scale that is stored: that may be what is wrong.
    """

    top: float
    """Steps from zero to the largest number of those that share a scale."""
    size: int | None
    """Numbers of a row that share one; None is the whole row."""
    dtype: str
    """Number format of the scale, by torch's name."""

    def off(self, wanted: Tensor, found: Tensor) -> Off:
        """The difference, in steps, that is largest beside what is allowed."""
        import torch

        told = torch.finfo(getattr(torch, self.dtype))
        groups = wanted.float().reshape(-1, self.size or wanted.shape[-1])
        step = groups.abs().amax(1, keepdim=True) / self.top
        # Half the distance of two numbers of the format, of which the smallest are evenly spaced.
        rounded = _ROUNDINGS * self.top * torch.clamp(step * told.eps / 2, min=told.smallest_normal * told.eps / 2)
        allowed = step / 2 + rounded
        away = (found.float().reshape(groups.shape) - groups).abs()
        place = int((away / allowed).argmax())
        row = place // groups.shape[1]
        unit = float(step[row]) or 1.0
        return Off(float(away.reshape(-1)[place]) / unit, float(allowed[row]) / unit, "steps")


@dataclass(frozen=True)
class Corrected:
    """Rounded so that a layer's outputs change least, by which single numbers move further (GPTQ, arXiv:2210.17323)."""

    bits: int
    size: int | None
    """As in `Nearest`."""

    def off(self, wanted: Tensor, found: Tensor) -> Off:
        """The length of the difference as a share of the length of the wanted numbers, or how far its groups are.

        Numbers move, but a group stays as long as it was; so scales that are not theirs are told.
        """
        plain = wanted.float().reshape(-1, self.size or wanted.shape[-1])
        there = found.float().reshape(plain.shape)
        half = 2 ** (self.bits - 1)
        step = plain.abs().amax(1, keepdim=True) / (half - 0.5)
        nearest = (plain / step.clamp(min=1e-30)).round().clamp(-half, half - 1) * step
        length = float(plain.norm()) or 1.0
        error = float((nearest - plain).norm()) / length
        lengths = (there.norm(dim=1) / plain.norm(dim=1).clamp(min=1e-30) - 1).square().mean().sqrt()
        away = Off(float((there - plain).norm()) / length, min(_FURTHER * error, _NOT_NOTHING), "of its length")
        longer = Off(float(lengths), _LENGTHS * error, "in the lengths of its groups")
        return away if away.share >= longer.share else longer


def compared(names: Iterable[str], read: Callable[[str], tuple[Tensor, Tensor]], bounds: Callable[[str], Bound]) -> Check:
    """Compare all tensors, one at a time.

    Args:
        names: of the tensors.
        read: gives what a tensor should be, and what it is in the finished folder.
        bounds: what is allowed of each.
    """
    layers, same, worst, where = 0, 0, Off(0.0, 0.0, "steps"), ""
    for name in names:
        bound, (wanted, found) = bounds(name), read(name)
        if wanted.shape != found.shape:
            said = f"{name} is {tuple(found.shape)} and should be {tuple(wanted.shape)}"
            return Check("rounding", name, False, said)
        is_same = isinstance(bound, Same)
        layers, same = layers + (not is_same), same + is_same
        off = bound.off(wanted, found)
        if is_same and off.share:
            return Check("rounding", name, False, f"{name} holds other numbers than the model's")
        if not where or off.share > worst.share:
            worst, where = off, name
    if not layers:
        return Check("rounding", 0.0, True, f"{same} tensors are the model's")
    said = f"worst layer {where}: {worst.found:.3g} {worst.said}, at most {worst.most:.3g}; {layers} layers are compared"
    return Check("rounding", worst.share, worst.share <= 1, said + (f", {same} other tensors are the model's" if same else ""))
