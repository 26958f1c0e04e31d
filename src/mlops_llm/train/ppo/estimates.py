"""The formulas of PPO, on tensors of shape (answers, tokens); a mask is 1 where an answer has a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_rewards(scores: Tensor, divergence: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """The reward of each token: less than nothing for leaving the reference, and the answer's score at its last token.

    r_t = -coefficient (log p(t) - log p_ref(t)) + [t is last] score; Ziegler et al. 2019, arXiv:1909.08593, equation 2.

    Args:
        scores: shape (answers,).
        divergence: log p - log p_ref of each token.
        mask: 1 for tokens of the answer.
        coefficient: of the divergence.
    """
    import torch

    rewards = -coefficient * divergence * mask
    last = mask.sum(1).long() - 1
    rows = torch.arange(mask.size(0), device=mask.device)[last >= 0]
    rewards[rows, last[last >= 0]] += scores[last >= 0]
    return rewards


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2015, arXiv:1506.02438, equation 16).

    A_t = delta_t + gamma lam A_(t+1) with delta_t = r_t + gamma V_(t+1) - V_t; after an answer's last token V and A are 0.
    """
    import torch

    found = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for place in range(rewards.size(1) - 1, -1, -1):
        is_last = place + 1 == rewards.size(1)
        following = torch.zeros_like(running) if is_last else values[:, place + 1] * mask[:, place + 1]
        delta = rewards[:, place] + gamma * following - values[:, place]
        running = (delta + gamma * lam * running) * mask[:, place]
        found[:, place] = running
    return found


def whiten(values: Tensor, mask: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Values with mean 0 and variance 1, 0 outside of the mask."""
    return (values - mean) / (variance + 1e-8).sqrt() * mask


def moments(values: Tensor, mask: Tensor) -> Tensor:
    """Sum, sum of squares and number of the masked values: what several processes add up."""
    import torch

    chosen = values * mask
    return torch.stack([chosen.sum(), (chosen * values).sum(), mask.sum().to(values.dtype)])


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, no smaller than with the value moved by at most `clip` (Schulman et al. 2017's baselines).

    L = 1/2 mean max((V - R)^2, (clip(V, V_old ± clip) - R)^2)
    """
    import torch

    clipped = old + (new - old).clamp(-clip, clip)
    error = torch.max((new - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * (error * mask).sum() / mask.sum().clamp(min=1)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Number, mean and variance of the masked values, in double precision: what each of several processes finds of its own."""
    import torch

    chosen = values[mask.bool()].double()
    number = torch.tensor(float(chosen.numel()), dtype=torch.float64, device=values.device)
    if not chosen.numel():
        return torch.stack([number, number, number])
    return torch.stack([number, chosen.mean(), chosen.var(unbiased=False)])


def pooled(spreads: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of all values together: the variance within the parts and that of their means.

    Args:
        spreads: of one part each; shape (parts, ..., 3).
    """
    numbers, means, variances = spreads.unbind(-1)
    total = numbers.sum(0).clamp(min=1)
    mean = (numbers * means).sum(0) / total
    return mean, (numbers * (variances + (means - mean) ** 2)).sum(0) / total


def explained_variance(left: Tensor, returns: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 is a perfect critic, 0 one that knows the mean; NaN if all returns agree.

    Args:
        left: variance of what the values leave of the returns.
        returns: variance of the returns.
    """
    return 1 - float(left) / float(returns) if returns > 0 else float("nan")


@dataclass
class Coefficient:
    """The factor of the divergence: fixed, or moved towards a wanted divergence (Ziegler et al. 2019, section 2.2)."""

    value: float
    target: float | None = None
    """Divergence of an answer in nats that is aimed at; None keeps the value."""
    horizon: int = 10_000
    """Answers over which the value adapts."""

    def update(self, divergence: float, answers: int) -> None:
        """Move the value after answers with this mean divergence; none leave it."""
        if self.target is not None and answers:
            error = min(max(divergence / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error * answers / self.horizon
