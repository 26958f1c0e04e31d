"""Direct preference optimization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm.component import component, near
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.train import examples
from mlops_llm.train.compared import Compared
from mlops_llm.train.examples import Pair
from mlops_llm.train.reference import Reference

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job

LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
_SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")


@component("algo", "dpo")
@dataclass
class DPO(Compared):
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): prefer one answer to another (TRL's DPOTrainer).

    The reference is the start model. Dropout is off, so that both see the same.
    """

    kinds: ClassVar[tuple[Kind, ...]] = (Kind.dpo,)
    best_metric: ClassVar[str] = "eval/loss"
    telling: ClassVar[tuple[str, ...]] = ("eval/rewards/accuracies", "eval/rewards/margins")
    rewarded: ClassVar[bool] = False
    leaves_out: ClassVar[str] = "nothing of their answer remained within algo.max_tokens"
    distributed: ClassVar[tuple[str, ...]] = ("ddp", "fsdp2", "zero3")

    beta: float = 0.1
    """How strongly the model is held to the reference: the higher, the nearer."""
    loss: list[str] = field(default_factory=lambda: ["sigmoid"])
    """One or more of TRL's losses; sigmoid is the paper's, sft adds cross entropy on the chosen answer."""
    loss_weights: Optional[list[float]] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Factor of each loss; null is 1 for each."""
    label_smoothing: float = 0.0
    """Assumed share of pairs that are the wrong way round; the losses robust, exo_pair and aot use it."""
    reference: Reference = Reference.auto
    """auto and start hold the model to the start model; base holds an adapter to its base model."""
    precompute: bool = True
    """Training all weights: compute the reference's log-probabilities once before, which spares the memory of its copy and
    two forward passes a step; an adapter's reference costs no memory and is not precomputed."""
    max_tokens: int = 512
    """Longer rows are cut at the end, counted and reported."""

    def __post_init__(self) -> None:
        """Check the ranges, and that losses and weights fit together."""
        if not 0 < self.beta < math.inf:
            raise UserError(f"is {self.beta}", "algo.beta", "give a number above 0, such as 0.1")
        if self.max_tokens < 2:
            raise UserError(f"is {self.max_tokens}", "algo.max_tokens", "give a number from 2")
        for name in self.loss:
            if name not in LOSSES:
                raise UserError(f"there is no loss '{name}'{near(name, LOSSES)}", "algo.loss", f"one of: {', '.join(LOSSES)}")
        if not self.loss:
            raise UserError("is empty", "algo.loss", "name one, such as sigmoid")
        if len(set(self.loss)) < len(self.loss):
            raise UserError(f"names one twice: {', '.join(self.loss)}", "algo.loss", "name each once, with algo.loss_weights")
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss):
            said = f"gives {len(self.loss_weights)} for {len(self.loss)} losses"
            raise UserError(said, "algo.loss_weights", "give one weight for each of algo.loss")
        for weight in self.loss_weights or ():
            if not 0 <= weight < math.inf:
                raise UserError(f"has {weight}", "algo.loss_weights", "give numbers from 0")
        if self.loss_weights is not None and not any(self.loss_weights):
            raise UserError("are all 0, so that nothing is learned", "algo.loss_weights", "give one above 0")
        self._check_smoothing()

    def _check_smoothing(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"is {self.label_smoothing}", "algo.label_smoothing", "give a share from 0 to below 0.5")
        if self.label_smoothing and not set(_SMOOTHED) & set(self.loss):
            what = f"is not used by {' and '.join(self.loss)}"
            raise UserError(what, "algo.label_smoothing", "leave it out, or take algo.loss=[robust]")
        if "exo_pair" in self.loss and not self.label_smoothing:
            raise UserError("is 0, for which exo_pair is not defined", "algo.label_smoothing", "give a small one, such as 1e-3")

    def evaluated(self, settings: Train) -> Sequence[str]:
        """The loss, and TRL's numbers of both answers."""
        sides = [f"eval/{of}/{side}" for of in ("rewards", "logps", "logits") for side in ("chosen", "rejected")]
        return ["eval/loss", *self.telling, *sides, "eval/mean_token_accuracy", "eval/entropy"]

    @property
    def loss_name(self) -> str:
        """That of its losses."""
        return f"preference loss ({' + '.join(self.loss)}), mean of the pairs"

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
        from trl import DPOConfig, DPOTrainer

        settings = job.config(
            DPOConfig,
            per_device_eval_batch_size=job.even_batch,
            beta=self.beta,
            loss_type=self.loss,
            loss_weights=self.loss_weights,
            label_smoothing=self.label_smoothing,
            max_length=None,
            precompute_ref_log_probs=self.precompute and not job.adapter,
        )
        validation = _dataset(job.validation) if job.validation else None
        return self.built(job, DPOTrainer, settings, _dataset(job.train), validation)


def _dataset(encoded: Sequence[Pair]) -> Any:
    from datasets import Dataset

    columns = {"prompt_ids": "prompt", "chosen_ids": "chosen", "rejected_ids": "rejected"}
    return Dataset.from_dict({column: [getattr(one, field) for one in encoded] for column, field in columns.items()})
