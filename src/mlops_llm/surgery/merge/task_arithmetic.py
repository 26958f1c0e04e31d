"""What trainings changed, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_llm.surgery.merge.pieces import pieces, room

if TYPE_CHECKING:
    from torch import Tensor


def task_arithmetic(base: Tensor, tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Base plus each model's change from it times a factor (Ilharco et al. 2023, arXiv:2212.04089, section 2).

    Args:
        base: what the models were trained from.
        tensors: of the same shape.
        factors: one for each: the paper's scaling term, any number; a negative one takes away what was learned.
        out: where the result goes, in its own type; None makes a float32 tensor.
    """
    found = room(base, out)
    for (start, *parts), into in pieces([base, *tensors], found):
        total = start.clone()
        for part, factor in zip(parts, factors, strict=True):
            total.add_(part - start, alpha=factor)
        into.copy_(total)
    return found
