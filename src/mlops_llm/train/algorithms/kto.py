"""Kahneman-Tversky optimization."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.train import examples
from mlops_llm.train.compared import Compared
from mlops_llm.train.examples import Answered
from mlops_llm.train.reference import Reference

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


class Loss(Enum):
    """Which of TRL's losses."""

    kto = "kto"
    apo_zero_unpaired = "apo_zero_unpaired"


@component("algo", "kto")
@dataclass
class KTO(Compared):
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306): answers that are wanted or not.

    A preference pair counts as one answer of each sort. The reference is the start model. Rows are shuffled once by the seed
    and keep this order in every pass, since the divergence is estimated from the neighbours within a batch.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.kto, Kind.dpo)
    best_metric: ClassVar[str] = "eval/loss"
    telling: ClassVar[tuple[str, ...]] = ("eval/rewards/chosen", "eval/rewards/rejected", "eval/rewards/margins")
    rewarded: ClassVar[bool] = False
    leaves_out: ClassVar[str] = "nothing of their answer remained within algo.max_tokens"
    distributed: ClassVar[tuple[str, ...]] = ("ddp", "fsdp2", "zero3")

    beta: float = 0.1
    """How strongly the model is held to the reference: the higher, the nearer."""
    loss: Loss = Loss.kto
    """kto is the paper's; apo_zero_unpaired needs no estimate of the divergence."""
    desirable_weight: float = 1.0
    """Factor of the loss of wanted answers."""
    undesirable_weight: float = 1.0
    """Factor of the loss of unwanted answers; the paper keeps weight times number of both within 1 to 4/3."""
    reference: Reference = Reference.auto
    """auto and start hold the model to the start model; base holds an adapter to its base model."""
    precompute: bool = True
    """Training all weights: compute the reference's log-probabilities once before, which spares the memory of its copy."""
    max_tokens: int = 512
    """Longer rows are cut at the end, counted and reported."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give a number above 0")
        if self.max_tokens < 2:
            raise UserError(f"is {self.max_tokens}", "algo.max_tokens", "give a number from 2")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """The loss, the divergence, and TRL's numbers of wanted and unwanted answers; a part may lack either."""
        sides = [f"eval/{of}/{side}" for of in ("logps", "logits") for side in ("chosen", "rejected")]
        return ["eval/loss", *self.telling, *sides, "eval/kl", "eval/entropy"]

    @property
    def loss_name(self) -> str:
        """That of its loss."""
        return f"preference loss ({self.loss.value}), mean of the answers"

    def check(self, settings: Train) -> None:
        """Check the reference and the batch.

        Raises:
            UserError: no adapter is trained that could be left off; there is to be dropout; or a batch holds one row, of which
                no divergence can be estimated.
        """
        super().check(settings)
        if self.loss is Loss.kto and settings.trainer.batch_size < 2:
            remedy = "give at least 2, or take algo.loss=apo_zero_unpaired"
            raise UserError("is 1, and kto compares the rows of a batch", "trainer.batch_size", remedy)

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> list[Answered]:
        """Tokenize answers as the model sees them.

        Raises:
            UserError: a row has no label, or none keeps a token of its answer.
        """
        return examples.judged(tokenizer, source, rows, self.max_tokens)

    def sequences(self, encoded: Sequence[Answered]) -> list[int]:
        """Tokens of each row that a forward pass sees: a second pass sees its neighbour's answer."""
        passes = 2 if self.loss is Loss.kto else 1
        return [passes * min(len(one.ids), self.max_tokens) for one in encoded]

    def trainer(self, job: Job) -> Any:
        """Build TRL's trainer over tokenized answers."""
        from trl import KTOConfig, KTOTrainer

        settings = job.config(
            KTOConfig,
            per_device_eval_batch_size=job.even_batch,
            beta=self.beta,
            loss_type=self.loss.value,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
            max_length=None,
            precompute_ref_log_probs=self.precompute and not job.adapter,
        )
        shuffled = list(job.train)
        random.Random(job.arguments["seed"]).shuffle(shuffled)
        train = self._dataset(shuffled, settings.per_device_train_batch_size)
        validation = self._dataset(job.validation, settings.per_device_eval_batch_size) if job.validation else None
        return self.built(job, KTOTrainer, settings, train, validation)

    def _dataset(self, encoded: Sequence[Answered], batch: int) -> Any:
        from datasets import Dataset

        columns: dict[str, list[Any]] = {
            "prompt_ids": [one.prompt for one in encoded],
            "completion_ids": [one.answer for one in encoded],
            "label": [one.wanted for one in encoded],
        }
        if self.loss is Loss.kto:
            columns["KL_completion_ids"] = neighbours([one.answer for one in encoded], batch)
        return Dataset.from_dict(columns)


def neighbours(answers: Sequence[list[int]], batch: int) -> list[list[int]]:
    """For each row the answer of the row before it in its batch (of the first, the last one's): mismatched pairs."""
    parts = [list(answers[start : start + batch]) for start in range(0, len(answers), batch)]
    return [answer for part in parts for answer in [part[-1], *part[:-1]]]
