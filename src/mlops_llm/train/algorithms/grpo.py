"""Group relative policy optimization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files
from mlops_llm.train.needs import Held
from mlops_llm.train.rollouts import Sampled

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


class Loss(Enum):
    """How token losses are averaged."""

    dapo = "dapo"
    grpo = "grpo"
    bnpo = "bnpo"
    dr_grpo = "dr_grpo"


class Scale(Enum):
    """By what advantages are divided."""

    group = "group"
    batch = "batch"
    none = "none"


@component("algo", "grpo")
@dataclass
class GRPO(Sampled):
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300): answers are better or worse than their group's.

    TRL's GRPOTrainer. `trainer.batch_size` counts answers, not prompts.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.grpo, Kind.ppo, Kind.eval)

    beta: float = 0.0
    """Factor of the divergence from the start model; 0 needs no reference."""
    epsilon_high: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Upper clip range; null is epsilon."""
    loss: Loss = Loss.dapo
    """How token losses are averaged: dapo over all tokens of a step, grpo within each answer first."""
    scale: Scale = Scale.group
    """By which standard deviation advantages are divided."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise UserError(f"is {self.beta}", "algo.beta", "give 0, or a number above it")
        if self.epsilon_high is not None and not self.epsilon <= self.epsilon_high < math.inf:
            raise UserError(f"is {self.epsilon_high}", "algo.epsilon_high", f"give at least algo.epsilon={self.epsilon}")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """What all methods with sampled answers give, the divergence where it counts, and the sampler's own."""
        kl = ["eval/kl"] if self.beta else []
        return [*super().evaluated(settings), *kl, *settings.rollout.evaluated]

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """The reference, where it counts."""
        return self.reference(settings, files) if self.beta else ()

    def trainer(self, job: Job) -> Any:
        """Build TRL's trainer with the rewards as functions."""
        from trl import GRPOConfig, GRPOTrainer

        settings = job.config(
            GRPOConfig,
            **self.settings(job),
            beta=self.beta,
            epsilon_high=self.epsilon_high,
            loss_type=self.loss.value,
            scale_rewards=self.scale.value,
        )
        return self.built(job, partial(GRPOTrainer, args=settings))
