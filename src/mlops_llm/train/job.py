"""What an algorithm builds its trainer from, and the building."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.models import load
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.record import Run
from mlops_llm.train.distributed import save_tied_once
from mlops_llm.train.peft import whole_numbers
from mlops_llm.train.sampler import Sampler

if TYPE_CHECKING:
    from mlops_llm.train.plan import Plan


@dataclass(frozen=True)
class Job:
    """What an algorithm builds its trainer from."""

    model: Any
    tokenizer: Any
    train: Sequence[Any]
    """Examples, as the algorithm's `encode` made them."""
    validation: Sequence[Any]
    arguments: dict[str, Any]
    """Keyword arguments of TRL's config class, the same for every algorithm."""
    adapter: bool
    """An adapter is trained, the base stays."""
    new_adapter: bool
    """The adapter is new: until the first step the model is its base."""
    load: ModelLoad
    """How models are loaded."""
    start: Files
    """The start model."""
    rewards: Mapping[str, Any]
    """Name -> reward (`train.reward.Reward`)."""
    rollout: Sampler
    """What samples answers."""
    run: Run
    processes: int
    """How many train together."""

    @property
    def even_batch(self) -> int:
        """Rows a device and forward pass of an evaluation, so that its batches are of one size as far as they can be.

        TRL's numbers of an evaluation are means over its batches, in which a small last one would count too much.
        """
        most = self.arguments["per_device_eval_batch_size"] * self.processes
        return even(len(self.validation), most, self.processes) // self.processes

    def config(self, cls: type, **more: Any) -> Any:
        """TRL's settings of class `cls`, for one GPU a process: transformers would take all that it sees, which TRL refuses.

        Args:
            cls: one of TRL's config classes.
            more: keyword arguments besides `arguments`, before which they go.
        """
        made = cls(**{**self.arguments, **more})
        made._n_gpu = min(made.n_gpu, 1)
        return made


def even(count: int, most: int, unit: int) -> int:
    """The size of batches of at most about `most` that share `count` evenly, a multiple of `unit`.

    A divisor of `count` is taken where one is large enough, else the last batch is a little smaller than the others.
    """
    parts = max(1, math.ceil(count / most))
    size = max(unit, math.ceil(math.ceil(count / parts) / unit) * unit)
    return next((each for each in range(size, size // 2, -unit) if count % each == 0), size)


def build(plan: Plan, output: Path, run: Run) -> tuple[Any, Any]:
    """Build model (in the job) and trainer; the seed comes first, since a new adapter is random."""
    _quiet()
    from transformers import PrinterCallback, set_seed

    settings = plan.settings
    set_seed(settings.seed)
    model = settings.peft.load(plan.files, settings.model_load, settings.algo.task)
    job = Job(
        model,
        plan.tokenizer,
        plan.train.encoded,
        plan.validation.encoded if plan.validation else (),
        _arguments(plan, output),
        settings.peft.trains_adapter,
        settings.peft.base(plan.files) is plan.files,
        settings.model_load,
        plan.files,
        settings.reward,
        settings.rollout,
        run,
        settings.distributed.count,
    )
    with whole_numbers(model):
        trainer = settings.algo.trainer(job)
    settings.distributed.confirm(trainer)
    if settings.distributed.sharded:
        save_tied_once(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.create_model_card = _no_card  # TRL's would lie in the run's folder and say nothing that is known here
    return job, trainer


def _quiet() -> None:
    """Keep what libraries print of their own doings off the terminal."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    console.hush()
    warnings.filterwarnings("ignore", "TRL currently supports vLLM")  # said also where no vLLM is used


def _no_card(*args: Any, **kwargs: Any) -> None:
    """Write no model card."""


def _arguments(plan: Plan, output: Path) -> dict[str, Any]:
    import torch

    settings, trainer = plan.settings, plan.settings.trainer
    dtype = load.dtype_of(settings.model_load.dtype).name
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(output),
        "max_steps": trainer.max_steps,
        "num_train_epochs": trainer.epochs,
        "per_device_train_batch_size": trainer.batch_size,
        "per_device_eval_batch_size": trainer.batch_size,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        "learning_rate": trainer.learning_rate,
        "lr_scheduler_type": trainer.schedule.value,
        "warmup_steps": trainer.warmup_ratio,
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "logging_steps": trainer.logging_steps,
        "eval_strategy": "steps" if plan.validation else "no",
        "eval_steps": trainer.eval_steps,
        "eval_on_start": bool(plan.validation) and plan.resume_from is None,
        "save_strategy": "steps",
        "save_steps": trainer.save_steps,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "bf16": cuda and dtype == "bfloat16",
        "fp16": cuda and dtype == "float16",
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "report_to": "none",
        "disable_tqdm": True,
        **settings.distributed.arguments(settings),
    }
