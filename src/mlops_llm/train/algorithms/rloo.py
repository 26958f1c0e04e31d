"""REINFORCE leave-one-out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files
from mlops_llm.train.needs import Held
from mlops_llm.train.rollouts import Sampled

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


@component("algo", "rloo")
@dataclass
class RLOO(Sampled):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740): the baseline is the mean of the other answers.

    Needs no critic. TRL's RLOOTrainer. `trainer.batch_size` counts answers, not prompts.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.ppo, Kind.grpo, Kind.eval)

    generations: int = 4
    """Answers to each prompt of a round."""
    beta: float = 0.05
    """Factor of the divergence from the start model, which is taken from the reward; 0 needs no reference."""
    normalize_advantages: bool = False
    """Divide advantages by their standard deviation over the step."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise UserError(f"is {self.beta}", "algo.beta", "give 0, or a number above it")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """What all methods with sampled answers give, and the divergence where it counts."""
        return [*super().evaluated(settings), *(["eval/kl"] if self.beta else [])]

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """The reference, where it counts."""
        return self.reference(settings, files) if self.beta else ()

    def trainer(self, job: Job) -> Any:
        """Build TRL's trainer with the rewards as functions."""
        from trl import RLOOConfig, RLOOTrainer

        settings = job.config(RLOOConfig, **self.settings(job), beta=self.beta, normalize_advantages=self.normalize_advantages)
        return self.built(job, partial(RLOOTrainer, args=settings))
