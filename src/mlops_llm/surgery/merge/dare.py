"""DARE: drop changes at random, make up for them, and add what is left."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from mlops_llm.surgery.merge.pieces import pieces, room
from mlops_llm.surgery.merge.ties import agreeing

if TYPE_CHECKING:
    from torch import Tensor


class Rescale(Enum):
    """How the changes that are left make up for those that were dropped."""

    paper = "paper"
    """They are divided by 1 - drop_rate."""
    l1 = "l1"
    """Their sizes of each tensor add up to what they did before, as mergekit has it."""


def dare(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    drop_rate: float,
    draws: Sequence[int],
    rescale: Rescale = Rescale.paper,
    *,
    ties: bool = False,
    normalize: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Base plus weighted changes, of which a share was dropped at random (Yu et al. 2024, arXiv:2311.03099, section 3.2).

    What is left is divided by 1 - p, as in the paper; mergekit brings each tensor's change back to its sum of sizes instead.

    Args:
        base: what the models were trained from.
        tensors: of the same shape.
        weights: one for each, summing to 1.
        drop_rate: the paper's p: how likely each change is dropped.
        draws: seeds of what is dropped, one for each, from `draw`.
        rescale: how that is made up for.
        ties: only changes of the elected sign count (DARE with TIES, section 4.1).
        normalize: divide these by the weights of those that agree; mergekit's dare_ties does not by default.
        out: where the result goes, in its own type; None makes a float32 tensor.
    """
    found = room(base, out)
    factors = _factors(base, tensors, weights, drop_rate, draws, rescale)
    coins = [_coins(draw) for draw in draws]
    for (start, *parts), into in pieces([base, *tensors], found):
        left = [
            _dropped(part - start, drop_rate, coin).mul_(factor)
            for part, coin, factor in zip(parts, coins, factors, strict=True)
        ]
        into.copy_(start + agreeing(left, list(weights) if normalize else None) if ties else _added(start, left))
    return found


def _factors(
    base: Tensor, tensors: Sequence[Tensor], weights: Sequence[float], drop_rate: float, draws: Sequence[int], rescale: Rescale
) -> list[float]:
    """Each model's weight, with what makes up for its dropped changes."""
    if rescale is Rescale.l1:
        made_up = [_made_up(base, each, drop_rate, draw) for each, draw in zip(tensors, draws, strict=True)]
        return [weight * more for weight, more in zip(weights, made_up, strict=True)]
    return [weight / (1.0 - drop_rate) for weight in weights] if drop_rate else list(weights)


def _added(start: Tensor, changes: Sequence[Tensor]) -> Tensor:
    """Base and changes, one after the other."""
    total = start.clone()
    for each in changes:
        total.add_(each)
    return total


def draw(seed: int, name: str, place: int) -> int:
    """The seed of one tensor of one model, which depends on no other tensor and on no order."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}\0{place}".encode()).digest()[:8], "big") >> 1


def _coins(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _dropped(change: Tensor, drop_rate: float, coins: Any) -> Tensor:
    """A change without what is dropped, in place."""
    import torch

    if not drop_rate:
        return change
    gone = torch.empty(change.shape, dtype=torch.bool).bernoulli_(drop_rate, generator=coins)
    return change.masked_fill_(gone, 0.0)


def _made_up(base: Tensor, tensor: Tensor, drop_rate: float, seed: int) -> float:
    """Sum of a change's sizes before the drop, divided by that after it; 1 where nothing is left."""
    coins, before, after = _coins(seed), 0.0, 0.0
    for (start, part), _ in pieces([base, tensor]):
        change = part - start
        before += float(change.abs().sum())
        after += float(_dropped(change, drop_rate, coins).abs().sum())
    return before / after if after else 1.0
