"""Proximal policy optimization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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


@component("algo", "ppo")
@dataclass
class PPO(Sampled):
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) with a critic and a reward for each token.

    Advantages are generalized estimates (Schulman et al. 2015); leaving the start model costs reward at each token (Ziegler et
    al. 2019). `trainer.batch_size` counts answers, not prompts.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.ppo, Kind.grpo, Kind.eval)
    grouped: ClassVar[bool] = False

    generations: int = 2
    """Answers to each prompt of a round."""
    iterations: int = 2
    """Times that sampled answers are learned from."""
    kl: float = 0.05
    """Factor of the divergence from the start model in the reward of each token."""
    kl_target: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Divergence of an answer, in nats, towards which the factor is moved; null keeps the factor."""
    kl_horizon: int = 10_000
    """Answers over which the factor adapts to kl_target."""
    gamma: float = 1.0
    """Discount of later rewards."""
    lam: float = 0.95
    """Of generalized advantage estimation: 0 trusts the critic, 1 the rewards."""
    value_clip: float = 0.2
    """Most that a value moves in a round before the critic's loss holds it back."""
    critic_learning_rate: Optional[float] = None  # noqa: UP045
    """Constant learning rate of the critic, all of whose weights are trained; null is trainer.learning_rate, a tenth of it
    where an adapter is trained."""
    critic_first: int = 0
    """Steps at the beginning in which only the critic learns."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 <= self.kl < math.inf:
            raise UserError(f"is {self.kl}", "algo.kl", "give 0, or a number above it")
        if self.kl_target is not None and not 0 < self.kl_target < math.inf:
            raise UserError(f"is {self.kl_target}", "algo.kl_target", "give nats above 0, or null")
        if self.kl_target is not None and not self.kl:
            raise UserError("is 0, which no target can move", "algo.kl", "give a factor above 0 to begin with")
        for name in ("kl_horizon", "value_clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give a number above 0")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give a number from 0 to 1")
        if self.critic_learning_rate is not None and not 0 < self.critic_learning_rate < math.inf:
            raise UserError(f"is {self.critic_learning_rate}", "algo.critic_learning_rate", "give a number above 0, or null")
        if self.critic_first < 0:
            raise UserError(f"is {self.critic_first}", "algo.critic_first", "give a whole number from 0")

    def check(self, settings: Train) -> None:
        """See that the policy learns at all, and what all methods with sampled answers check.

        Raises:
            UserError: it does not fit.
        """
        super().check(settings)
        steps = settings.trainer.max_steps
        if 0 < steps <= self.critic_first:
            what = f"is {self.critic_first} of {steps} steps, so that the policy never learns"
            raise UserError(what, "algo.critic_first", "give fewer than trainer.max_steps")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """What all methods with sampled answers give, and the sampler's own; the divergence is told of the training."""
        return [*super().evaluated(settings), *settings.rollout.evaluated]

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """The reference and the critic."""
        return [*self.reference(settings, files), Held("critic", files.parameters, trained=True)]

    def trainer(self, job: Job) -> Any:
        """Build our trainer on TRL's sampling, with a critic that begins as the start model."""
        from trl import GRPOConfig

        from mlops_llm.models import load
        from mlops_llm.models.load import Dtype
        from mlops_llm.train.ppo.critic import Critic
        from mlops_llm.train.ppo.estimates import Coefficient
        from mlops_llm.train.ppo.trainer import PPOTrainer, Settings

        settings = job.config(
            GRPOConfig,
            **self.settings(job),
            beta=1.0,  # TRL then computes the reference's log-probabilities; the factor itself is ours
            loss_type="bnpo",
            scale_rewards="none",
        )
        rate = self.critic_learning_rate or settings.learning_rate * (0.1 if job.adapter else 1)
        start = load.model(job.start, replace(job.load, dtype=Dtype.float32), merge=True)
        recompute = bool(settings.gradient_checkpointing)
        critic = Critic(start, job.model.device, rate, self.value_clip, settings.max_grad_norm, recompute)
        coefficient = Coefficient(self.kl, self.kl_target, self.kl_horizon)
        how = Settings(self.gamma, self.lam, self.critic_first)
        return self.built(job, partial(PPOTrainer, critic, coefficient, how, args=settings))
