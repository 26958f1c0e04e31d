"""Supervised fine-tuning on answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.models.template import Encoded
from mlops_llm.train import examples
from mlops_llm.train.written import Written

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


class LossOn(Enum):
    """Which tokens are learned."""

    answers = "answers"
    whole = "whole"


@component("algo", "sft")
@dataclass
class SFT(Written):
    """Supervised fine-tuning: next-token cross entropy on the answers (TRL's SFTTrainer)."""

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.sft,)
    best_metric: ClassVar[str] = "eval/loss"
    telling: ClassVar[tuple[str, ...]] = ()
    rewarded: ClassVar[bool] = False
    leaves_out: ClassVar[str] = "nothing of their answer remained within algo.max_tokens"
    distributed: ClassVar[tuple[str, ...]] = ("ddp", "fsdp2", "zero3")

    loss_on: LossOn = LossOn.answers
    """answers learns the assistant's turns with their end mark, whole learns every token."""
    max_tokens: int = 512
    """Longer rows are cut at the end, counted and reported."""
    packing: bool = False
    """Fill each sequence with several rows (best fit decreasing, without attention across rows): fewer padding tokens."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.max_tokens < 2:
            raise UserError(f"is {self.max_tokens}", "algo.max_tokens", "give a number from 2")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """The loss, and TRL's numbers of the tokens."""
        return ["eval/loss", "eval/mean_token_accuracy", "eval/entropy"]

    def check(self, settings: Train) -> None:
        """Every setting fits."""

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> list[Encoded]:
        """Tokenize rows as the model sees them; rows whose answer was cut away entirely are left out.

        Raises:
            UserError: a row is not a conversation, or no row keeps a trained token.
        """
        return examples.conversations(tokenizer, source, rows, self.max_tokens, answers_only=self.loss_on is LossOn.answers)

    def sequences(self, encoded: Sequence[Encoded]) -> list[int]:
        """Length in tokens of each sequence that a forward pass sees."""
        if not self.packing:
            return [min(len(one.ids), self.max_tokens) for one in encoded]
        from trl import pack_dataset

        from datasets import disable_progress_bars

        disable_progress_bars()
        return [len(ids) for ids in pack_dataset(_dataset(encoded), self.max_tokens)["input_ids"]]

    def trainer(self, job: Job) -> Any:
        """Build TRL's trainer over tokenized rows."""
        from trl import SFTConfig, SFTTrainer

        # Rows are cut and filtered already; only packing is left for TRL to prepare.
        ready = None if self.packing else {"skip_prepare_dataset": True}
        settings = job.config(
            SFTConfig, max_length=self.max_tokens, packing=self.packing, eval_packing=False, dataset_kwargs=ready
        )
        return SFTTrainer(
            model=job.model,
            args=settings,
            train_dataset=_dataset(job.train),
            eval_dataset=_dataset(job.validation) if job.validation else None,
            processing_class=job.tokenizer,
        )


def _dataset(encoded: Sequence[Encoded]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [one.ids for one in encoded], "labels": [one.labels for one in encoded]})
