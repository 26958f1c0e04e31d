"""Group relative policy optimization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
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
class GRPO:
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300): answers are better or worse than their group's.

    TRL's GRPOTrainer. `trainer.batch_size` counts answers, not prompts.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.grpo, Kind.ppo, Kind.eval)
    best_metric: ClassVar[str] = "eval/reward"
    telling: ClassVar[tuple[str, ...]] = ("eval/reward_accuracy", "eval/completions/mean_length", "eval/kl")
    rewarded: ClassVar[bool] = True
    leaves_out: ClassVar[str] = "their prompt is longer than algo.max_prompt_tokens, or they cannot be rewarded"

    generations: int = 8
    """Answers to each prompt; they are compared with each other."""
    max_new_tokens: int = 128
    """Most tokens of an answer."""
    max_prompt_tokens: int = 512
    """Longer prompts are left out and counted."""
    temperature: float = 1.0
    """Temperature of sampling; near 0 all answers to a prompt are alike, and nothing is learned."""
    top_p: float = 1.0
    """Share of the probability that is sampled from."""
    beta: float = 0.0
    """Factor of the divergence from the start model; 0 needs no reference."""
    epsilon: float = 0.2
    """The ratio of new to old probability is clipped to 1 - epsilon .. 1 + epsilon_high."""
    epsilon_high: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Upper clip range; null is epsilon."""
    loss: Loss = Loss.dapo
    """How token losses are averaged: dapo over all tokens of a step, grpo within each answer first."""
    scale: Scale = Scale.group
    """By which standard deviation advantages are divided."""
    iterations: int = 1
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
        if self.beta < 0:
            raise UserError(f"is {self.beta}", "algo.beta", "give 0, or a number above it")
        if not 0 < self.epsilon < 1:
            raise UserError(f"is {self.epsilon}", "algo.epsilon", "give a number between 0 and 1")
        if self.epsilon_high is not None and self.epsilon_high < self.epsilon:
            raise UserError(f"is {self.epsilon_high}", "algo.epsilon_high", f"give at least algo.epsilon={self.epsilon}")

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
        """Build TRL's trainer with the rewards as functions."""
        from trl import GRPOConfig, GRPOTrainer

        settings = GRPOConfig(
            **job.arguments,
            **rollouts.sampling(self),
            beta=self.beta,
            epsilon=self.epsilon,
            epsilon_high=self.epsilon_high,
            loss_type=self.loss.value,
            scale_rewards=self.scale.value,
            num_iterations=self.iterations,
            steps_per_generation=self.steps_per_generation,
            num_generations_eval=self.eval_generations,
            reward_weights=[reward.weight for reward in job.rewards.values()],
        )
        trainer = GRPOTrainer(
            model=job.model,
            reward_funcs=rollouts.functions(job.rewards),
            args=settings,
            train_dataset=rollouts.dataset(job.train),
            eval_dataset=rollouts.dataset(job.validation) if job.validation else None,
            processing_class=job.tokenizer,
        )
        freeze(trainer, job)
        trainer.add_callback(rollouts.watcher(trainer, job.run, self.max_new_tokens, self.table_steps))
        return trainer
