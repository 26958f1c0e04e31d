"""Settings of the train stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from mlops_llm.data.read import Read
from mlops_llm.errors import UserError
from mlops_llm.launch.place import Place
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import check_registered
from mlops_llm.train.distributed import Distributed
from mlops_llm.train.ema import Ema
from mlops_llm.train.evaluate import Evaluate
from mlops_llm.train.overfit import Overfit

PACKAGES = (
    "mlops_llm.train.algorithms",
    "mlops_llm.train.distributed",
    "mlops_llm.train.peft",
    "mlops_llm.train.rewards",
    "mlops_llm.train.samplers",
    "mlops_llm.train.sharing",
)
"""Where the components of a training are."""


class Op(Enum):
    """What to do."""

    fit = "fit"
    plan = "plan"


class Schedule(Enum):
    """How the learning rate moves."""

    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    linear = "linear"
    cosine = "cosine"


class Mode(Enum):
    """Which end of a metric is better."""

    auto = "auto"
    min = "min"
    max = "max"


class Storage(Enum):
    """How a checkpoint reaches the record."""

    auto = "auto"
    hardlink = "hardlink"
    reference = "reference"
    upload = "upload"


@dataclass
class Trainer:
    """The training loop."""

    max_steps: int = -1
    """Optimizer steps; -1 trains for `epochs`."""
    epochs: float = 1.0
    """Passes over the training part; max_steps wins."""
    batch_size: int = 8
    """Rows a device and forward pass."""
    gradient_accumulation_steps: int = 1
    """Forward passes an optimizer step."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    schedule: Schedule = Schedule.cosine
    """Course of the learning rate after warm-up."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    spike: float = 6.0
    """Standard deviations above the last 50 losses from which a loss is a spike, whose rows are named; 0 looks for none. None
    is looked for where answers are sampled: the loss of a policy moves around 0."""
    logging_steps: int = 10
    """Steps between two logged points; each logged loss is the mean since the last."""
    eval_steps: int = 50
    """Steps between two evaluations on the held-out part."""
    save_steps: int = 50
    """Steps between two checkpoints; a multiple of eval_steps, so that every checkpoint has its numbers."""
    save_total_limit: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Most checkpoints to keep; the best, the last and any that the registry names stay even above it. null keeps all."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, also PPO's critic: less memory, about a third more time."""

    def __post_init__(self) -> None:
        """Check that the numbers fit together."""
        for name in ("batch_size", "gradient_accumulation_steps", "logging_steps", "eval_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"trainer.{name}", "give a whole number from 1")
        if self.max_steps == 0 or self.max_steps < -1:
            raise UserError(
                f"is {self.max_steps}", "trainer.max_steps", "give a number from 1, or -1 to train for trainer.epochs"
            )
        if not 0 < self.epochs < math.inf:
            raise UserError(f"is {self.epochs}", "trainer.epochs", "give a number above 0")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"is {self.learning_rate}", "trainer.learning_rate", "give a number above 0")
        for name in ("weight_decay", "max_grad_norm", "spike"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"is {getattr(self, name)}", f"trainer.{name}", "give a number from 0")
        if not 0 <= self.warmup_ratio < 1:
            raise UserError(f"is {self.warmup_ratio}", "trainer.warmup_ratio", "give a share from 0 to below 1")
        if self.save_total_limit is not None and self.save_total_limit < 1:
            raise UserError(f"is {self.save_total_limit}", "trainer.save_total_limit", "give a number from 1, or null")
        if self.save_steps % self.eval_steps:
            nearest = max(1, round(self.save_steps / self.eval_steps)) * self.eval_steps
            raise UserError(
                f"{self.save_steps} is no multiple of trainer.eval_steps={self.eval_steps}",
                "trainer.save_steps",
                f"take trainer.save_steps={nearest} or change trainer.eval_steps",
            )


@dataclass
class Best:
    """Which checkpoint is the best."""

    metric: Optional[str] = None  # noqa: UP045
    """Metric that decides; null takes the algorithm's own, such as eval/loss. With evaluate.every a score may decide, such as
    score/bleu. Without a held-out part or a score the last checkpoint is taken."""
    mode: Mode = Mode.auto
    """min or max; auto takes min where the name ends in loss or perplexity, and of a score what its metric says."""

    @property
    def higher_is_better(self) -> bool:
        """The direction of `metric`."""
        if self.mode is Mode.auto:
            return not str(self.metric).endswith(("loss", "perplexity"))
        return self.mode is Mode.max


@dataclass
class Checkpoints:
    """Where checkpoints go."""

    storage: Storage = Storage.auto
    """auto hard-links into a local record and leaves a reference in a remote one; upload sends the files there."""


@dataclass
class Samples:
    """Answers to a few held-out prompts, before and after."""

    count: int = 5
    """How many prompts, or pairs that a reward model scores; 0 writes no table."""
    max_new_tokens: int = 64
    """Most tokens an answer."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.count < 0:
            raise UserError(f"is {self.count}", "samples.count", "give a number from 0")
        if self.max_new_tokens < 1:
            raise UserError(f"is {self.max_new_tokens}", "samples.max_new_tokens", "give a number from 1")


@dataclass
class Train:
    """Train a model on a dataset; all of it is recorded in MLflow, the best checkpoint is registered."""

    op: Op = Op.fit
    """fit trains; plan checks everything and shows what would happen."""
    model: str = "tiny"
    """Start: tiny, smollm2, a folder, a hub id, models:/NAME@ALIAS, runs:/RUN/checkpoint-STEP (also /best, /last)."""
    dataset: str = "???"
    """Training rows: the name of a file in datasets/, or a path."""
    validation: Optional[str] = None  # noqa: UP045
    """Held-out rows; null holds out a part of the dataset."""
    holdout: float = 0.1
    """Share of the dataset that is held out by row digest when no validation is named; 0 holds out nothing."""
    algo: Any = "???"
    """Training method."""
    peft: Any = "???"
    """Which weights are trained: none trains all, lora an adapter, qlora an adapter on a base of 4-bit numbers."""
    distributed: Any = field(default_factory=Distributed)
    """How many processes train, and how they share the model: none is one, ddp copies it, fsdp2 and zero3 divide it."""
    reward: dict[str, Any] = field(default_factory=dict)
    """What rates sampled answers (algo=grpo and its like); several add up by their weights."""
    rollout: Any = "???"
    """What samples the answers that are rewarded: hf is the model itself, vllm an engine."""
    trainer: Trainer = field(default_factory=Trainer)
    best: Best = field(default_factory=Best)
    overfit: Overfit = field(default_factory=Overfit)
    ema: Ema = field(default_factory=Ema)
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    samples: Samples = field(default_factory=Samples)
    model_load: ModelLoad = field(default_factory=ModelLoad)
    read: Read = field(default_factory=Read)
    register_as: Optional[str] = None  # noqa: UP045
    """Registered model whose new version the best checkpoint becomes, with the alias challenger; null registers nothing."""
    launch: Place = field(default_factory=Place)
    """Where the command runs: local is here and now, queue puts it into this machine's queue."""
    project: str = "default"
    """MLflow experiment."""
    run_name: Optional[str] = None  # noqa: UP045
    """Unique name of the run; null takes the experiment's name and four hex digits."""
    resume: Optional[str] = None  # noqa: UP045
    """Run (id or name) to go on with, in the same run and with its settings."""
    output: Optional[str] = None  # noqa: UP045
    """Folder of the run's files; null is outputs/RUN_NAME."""
    seed: int = 0
    """Seed of sample order, dropout and new weights."""

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if not 0 <= self.holdout < 1:
            raise UserError(f"is {self.holdout}", "holdout", "give a share from 0 to below 1")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"is {self.seed}", "seed", "give a whole number from 0 to 4294967295")
        if self.register_as is not None:
            check_registered(self.register_as, "register_as")
