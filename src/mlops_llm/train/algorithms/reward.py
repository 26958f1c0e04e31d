"""Reward modelling on preference pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.models.load import Task
from mlops_llm.train import examples
from mlops_llm.train.examples import Pair
from mlops_llm.train.written import Written

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


@component("algo", "reward")
@dataclass
class Reward(Written):
    """Reward modelling (Ouyang et al. 2022, arXiv:2203.02155, equation 1): a model learns to score the better answer higher.

    Loss: -log sigmoid(score of chosen - score of rejected) (Bradley and Terry 1952), TRL's RewardTrainer. The model is a
    language model whose head gives one number, read at the last token; a language model to start from gets a new head.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.dpo,)
    task: ClassVar[Task] = Task.reward
    best_metric: ClassVar[str] = "eval/loss"
    telling: ClassVar[tuple[str, ...]] = ("eval/accuracy", "eval/margin")
    rewarded: ClassVar[bool] = False
    leaves_out: ClassVar[str] = "nothing of their answer remained within algo.max_tokens"
    distributed: ClassVar[tuple[str, ...]] = ("ddp",)

    center_rewards_coefficient: float = 0.0
    """Factor of the squared sum of both scores, which holds their mean at 0 (Eisenstein et al. 2023, arXiv:2312.09244,
    equation 2), such as 0.01; 0 leaves the mean free, and the loss does not see it."""
    max_tokens: int = 512
    """Longer rows are cut at the end, counted and reported."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.center_rewards_coefficient < math.inf:
            what = f"is {self.center_rewards_coefficient}"
            raise UserError(what, "algo.center_rewards_coefficient", "give 0, or a number above it, such as 0.01")
        if self.max_tokens < 2:
            raise UserError(f"is {self.max_tokens}", "algo.max_tokens", "give a number from 2")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """The loss, and TRL's numbers of the scores."""
        scores = ["eval/min_reward", "eval/mean_reward", "eval/max_reward"]
        return ["eval/loss", *self.telling, *scores]

    @property
    def loss_name(self) -> str:
        """That of pairs."""
        return "-log sigmoid of the scores' difference, mean of the pairs"

    def check(self, settings: Train) -> None:
        """Check which weights are trained.

        Raises:
            UserError: the base is of 4-bit numbers, as which the head cannot be trained.
        """
        if settings.peft.quantized:
            raise UserError("trains no reward model, whose head needs whole numbers", "peft=qlora", "take peft=lora")

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> list[Pair]:
        """Tokenize pairs as the model sees them.

        Raises:
            UserError: a row is no preference pair, or none keeps a token of both answers.
        """
        return examples.pairs(tokenizer, source, rows, self.max_tokens)

    def sequences(self, encoded: Sequence[Pair]) -> list[int]:
        """Tokens of each row that a forward pass sees: those of both sides, padded to the longer one."""
        return [2 * min(one.longer, self.max_tokens) for one in encoded]

    def trainer(self, job: Job) -> Any:
        """Build TRL's trainer over tokenized pairs."""
        from trl import RewardConfig, RewardTrainer

        settings = job.config(
            RewardConfig,
            per_device_eval_batch_size=job.even_batch,
            center_rewards_coefficient=self.center_rewards_coefficient or None,
            disable_dropout=False,  # nothing is compared with a frozen copy, so that peft.dropout may act
            max_length=None,
        )
        return RewardTrainer(
            model=job.model,
            args=settings,
            train_dataset=_dataset(job.train),
            eval_dataset=_dataset(job.validation) if job.validation else None,
            processing_class=job.tokenizer,
        )


def _dataset(encoded: Sequence[Pair]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "chosen_ids": [[*one.prompt, *one.chosen] for one in encoded],
            "rejected_ids": [[*one.prompt, *one.rejected] for one in encoded],
        }
    )
