"""Weighted average of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_llm.surgery.merge.pieces import pieces, room

if TYPE_CHECKING:
    from torch import Tensor


def linear(tensors: Sequence[Tensor], weights: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Sum of tensors times weights (model soups: Wortsman et al. 2022, arXiv:2203.05482, eq. 1 for equal weights).

    mergekit divides by the sum of the weights; here they sum to 1, which the operation demands.

    Args:
        tensors: of one shape.
        weights: one for each.
        out: where the result goes, in its own type; None makes a float32 tensor.
    """
    import torch

    found = room(tensors[0], out)
    for parts, into in pieces(tensors, found):
        total = torch.mul(parts[0], weights[0], out=into if into.dtype is torch.float32 else None)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            total.add_(part, alpha=weight)
        if total is not into:
            into.copy_(total)
    return found
