"""Tensors piece by piece: arithmetic in float32 on a few megabytes at a time, whatever the stored type and size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20
"""Numbers in a piece. DARE's draws depend on it, so it is part of what a recipe's version stands for."""


def pieces(tensors: Sequence[Tensor], out: Tensor | None = None) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Walk over tensors of one shape together.

    Args:
        tensors: of one shape; they are not written to.
        out: of the same shape; None where nothing comes out.

    Yields:
        A piece of each tensor as float32, flat (a view where it is float32 already: write to none), and the piece of `out`,
        of `out`'s type, that it belongs to.
    """
    import torch

    flat = [each.reshape(-1) for each in tensors]
    into = flat[0] if out is None else out.view(-1)
    for first in range(0, flat[0].numel(), PIECE):
        part = slice(first, first + PIECE)
        yield [each[part].to(torch.float32) for each in flat], into[part]


def room(like: Tensor, out: Tensor | None) -> Tensor:
    """A tensor for the result: `out` where it is given, else a new one in float32."""
    import torch

    return torch.empty(like.shape, dtype=torch.float32) if out is None else out
