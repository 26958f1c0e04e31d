"""TIES: trim what hardly changed, elect a sign for each number, merge what agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from mlops_llm.surgery.merge.pieces import pieces, room

if TYPE_CHECKING:
    from torch import Tensor

_HALF = 1 << 16


class Form(Enum):
    """Whose TIES."""

    mergekit = "mergekit"
    """Trims each tensor, divides by the weights of those that agree."""
    authors = "authors"
    """Trims over the whole model, divides by how many agree, as the code beside the paper does."""


def ties(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    limits: Sequence[float],
    form: Form = Form.mergekit,
    scale: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Merge changes whose signs agree (Yadav et al. 2023, arXiv:2306.01708, section 3.2).

    Where paper and mergekit differ, mergekit's way is the default: the changes are trimmed tensor by tensor, and what agrees is
    divided by the weights of those that agree. The authors' code trims over the whole model and divides by their number. The
    sign is that of the weighted sum, and + where it is zero.

    Args:
        base: what the models were trained from.
        tensors: of the same shape.
        weights: one for each, summing to 1.
        limits: smallest change of each that is kept, from `limit`.
        form: the divisor; equal weights are factors of 1 in the authors' form.
        scale: the paper's lambda.
        out: where the result goes, in its own type; None makes a float32 tensor.
    """
    found = room(base, out)
    count = len(tensors)
    factors = [weight * count for weight in weights] if form is Form.authors else list(weights)
    for (start, *parts), into in pieces([base, *tensors], found):
        changes = [
            trimmed(part - start, limit).mul_(factor) for part, limit, factor in zip(parts, limits, factors, strict=True)
        ]
        shares = [1.0] * count if form is Form.authors else list(weights)
        into.copy_(start + agreeing(changes, shares).mul_(scale))
    return found


def trimmed(change: Tensor, limit: float) -> Tensor:
    """A change without what is smaller than the limit, in place."""
    return change.masked_fill_(change.abs() < limit, 0.0)


def agreeing(changes: Sequence[Tensor], shares: Sequence[float] | None) -> Tensor:
    """Sum of those changes that have the elected sign, divided by their shares.

    Args:
        changes: weighted, of one shape; zero where nothing changed, which agrees with nothing.
        shares: one for each; None does not divide.
    """
    import torch

    elected = torch.stack(list(changes)).sum(0) >= 0
    total, divisor = torch.zeros_like(changes[0]), torch.zeros_like(changes[0])
    for place, change in enumerate(changes):
        agrees = torch.where(elected, change > 0, change < 0)
        total.add_(change * agrees)
        if shares is not None:
            divisor.add_(agrees, alpha=shares[place])
    if shares is None:
        return total
    return total.div_(divisor.masked_fill_(divisor == 0, 1.0))


Changes = Callable[[], Iterable["Tensor"]]
"""Gives pieces of a change, flat and in float32; it is called twice and gives the same both times."""


def limit(changes: Changes, density: float) -> float:
    """The smallest size of a change that is kept, so that a share `density` of all numbers is.

    Found by counting, in two walks over the pieces: no number is sorted or held. Of floor(density * n) numbers, at least one;
    numbers of exactly the limit's size are all kept, so that equal ones are treated alike (mergekit keeps some of them).

    Args:
        changes: pieces of one tensor, or of a whole model.
        density: from above 0 to 1.
    """
    if density >= 1.0:
        return 0.0
    upper, total = _counts(changes, None)
    kept = max(1, int(density * total))
    high, above = _place(upper, kept)
    lower, _ = _counts(changes, high)
    low, _ = _place(lower, kept - above)
    return _as_float(high * _HALF + low)


def _counts(changes: Changes, high: int | None) -> tuple[Tensor, int]:
    """Sizes by the upper half of their bits, or, of those whose upper half is `high`, by the lower one; and how many."""
    import torch

    counts, total = torch.zeros(_HALF, dtype=torch.int64), 0
    for piece in changes():
        # The bits of floats that are not negative, read as whole numbers, have their order.
        bits = piece.abs().view(torch.int32)
        total += bits.numel()
        upper = bits >> 16
        part = upper if high is None else bits[upper == high] & (_HALF - 1)
        counts += torch.bincount(part, minlength=_HALF)
    return counts, total


def _place(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin, from the top, in which the `wanted`-th lies, and how many lie above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int((from_top < wanted).sum())
    above = int(from_top[place - 1]) if place else 0
    return _HALF - 1 - place, above


def _as_float(bits: int) -> float:
    import torch

    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))


def changes(base: Tensor, tensor: Tensor) -> Changes:
    """A tensor's change from the base, in pieces."""

    def walk() -> Iterable[Tensor]:
        for (start, part), _ in pieces([base, tensor]):
            yield part - start

    return walk
