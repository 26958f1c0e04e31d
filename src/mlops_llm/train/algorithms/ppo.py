"""Proximal policy optimization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.train import rollouts
from mlops_llm.train.reference import freeze
from mlops_llm.train.rollouts import Prompt

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.train import Job


@component("algo", "ppo")
@dataclass
class PPO:
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) with a critic and a reward for each token.

    Advantages are generalized estimates (Schulman et al. 2015); leaving the start model costs reward at each token (Ziegler et
    al. 2019). `trainer.batch_size` counts answers, not prompts.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.ppo, Kind.grpo, Kind.eval)
    best_metric: ClassVar[str] = "eval/reward"
    telling: ClassVar[tuple[str, ...]] = ("eval/reward_accuracy", "eval/completions/mean_length")
    rewarded: ClassVar[bool] = True
    leaves_out: ClassVar[str] = "their prompt is longer than algo.max_prompt_tokens, or they cannot be rewarded"

    generations: int = 2
    """Answers to each prompt of a round."""
    max_new_tokens: int = 128
    """Most tokens of an answer."""
    max_prompt_tokens: int = 512
    """Longer prompts are left out and counted."""
    temperature: float = 1.0
    """Temperature of sampling."""
    top_p: float = 1.0
    """Share of the probability that is sampled from."""
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
    epsilon: float = 0.2
    """The ratio of new to old probability is clipped to 1 - epsilon .. 1 + epsilon."""
    value_clip: float = 0.2
    """Most that a value moves in a round before the critic's loss holds it back."""
    critic_learning_rate: Optional[float] = None  # noqa: UP045
    """Constant learning rate of the critic, all of whose weights are trained; null is trainer.learning_rate, a tenth of it
    where an adapter is trained."""
    critic_first: int = 0
    """Steps at the beginning in which only the critic learns."""
    iterations: int = 2
    """Times that sampled answers are learned from."""
    steps_per_generation: Optional[int] = None  # noqa: UP045
    """Forward passes that one round of sampling serves; null is trainer.gradient_accumulation_steps."""
    eval_generations: int = 1
    """Answers to each held-out prompt in an evaluation."""
    table_steps: int = 20
    """Steps between two tables of sampled answers with their rewards (completions/)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        rollouts.check_sampling(self)
        if self.kl < 0:
            raise UserError(f"is {self.kl}", "algo.kl", "give 0, or a number above it")
        if self.kl_target is not None and self.kl_target <= 0:
            raise UserError(f"is {self.kl_target}", "algo.kl_target", "give nats above 0, or null")
        if self.kl_target is not None and not self.kl:
            raise UserError("is 0, which no target can move", "algo.kl", "give a factor above 0 to begin with")
        for name in ("kl_horizon", "value_clip"):
            if getattr(self, name) <= 0:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give a number above 0")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give a number from 0 to 1")
        if not 0 < self.epsilon < 1:
            raise UserError(f"is {self.epsilon}", "algo.epsilon", "give a number between 0 and 1")
        if self.critic_learning_rate is not None and self.critic_learning_rate <= 0:
            raise UserError(f"is {self.critic_learning_rate}", "algo.critic_learning_rate", "give a number above 0, or null")
        if self.critic_first < 0:
            raise UserError(f"is {self.critic_first}", "algo.critic_first", "give a whole number from 0")

    def check(self, settings: Train) -> None:
        """See that rounds of sampling hold whole groups, and move saving to their ends.

        Raises:
            UserError: a round is no multiple of the answers to a prompt.
        """
        rollouts.check_rounds(self, settings)

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> list[Prompt]:
        """Tokenize the prompts.

        Raises:
            UserError: a row asks nothing, or every prompt is too long.
        """
        return rollouts.prompts(tokenizer, source, rows, self.kinds, self.max_prompt_tokens)

    def sequences(self, encoded: Sequence[Prompt]) -> list[int]:
        """Most tokens of each prompt with an answer."""
        return [len(one.ids) + self.max_new_tokens for one in encoded]

    def conclude(self, job: Job) -> dict[str, str]:
        """Nothing to add."""
        return {}

    def trainer(self, job: Job) -> Any:
        """Build our trainer on TRL's sampling, with a critic that begins as the start model."""
        from trl import GRPOConfig

        from mlops_llm.train.ppo.critic import Critic
        from mlops_llm.train.ppo.estimates import Coefficient
        from mlops_llm.train.ppo.trainer import Settings, trainer

        settings = GRPOConfig(
            **job.arguments,
            **rollouts.sampling(self),
            beta=1.0,  # TRL then computes the reference's log-probabilities; the factor itself is ours
            epsilon=self.epsilon,
            loss_type="bnpo",
            scale_rewards="none",
            num_iterations=self.iterations,
            steps_per_generation=self.steps_per_generation,
            num_generations_eval=self.eval_generations,
            reward_weights=[reward.weight for reward in job.rewards.values()],
        )
        rate = self.critic_learning_rate or settings.learning_rate * (0.1 if job.adapter else 1)
        critic = Critic(job.start, job.model.device, rate, self.value_clip, settings.max_grad_norm)
        made = trainer(
            critic,
            Coefficient(self.kl, self.kl_target, self.kl_horizon),
            Settings(self.gamma, self.lam, self.critic_first),
            model=job.model,
            reward_funcs=rollouts.functions(job.rewards),
            args=settings,
            train_dataset=rollouts.dataset(job.train),
            eval_dataset=rollouts.dataset(job.validation) if job.validation else None,
            processing_class=job.tokenizer,
        )
        freeze(made, job)
        made.add_callback(rollouts.watcher(made, job.run, self.max_new_tokens, self.table_steps))
        return made
