"""Rough needs of a training, against what the machine has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import free_bytes
from mlops_llm.models.load import Files, dtype_of
from mlops_llm.train.config import Train


@dataclass(frozen=True)
class Estimate:
    """Needs in bytes and steps."""

    steps: int
    memory: int
    """Weights, gradients, optimizer and activations."""
    memory_least: int
    """Weights, gradients and optimizer alone: what no batch size can lower."""
    memory_there: int
    checkpoint: int
    """Bytes of one checkpoint, optimizer included."""
    disk: int
    """All checkpoints that are kept."""
    disk_there: int


def estimate(settings: Train, files: Files, lengths: list[int]) -> Estimate:
    """Estimate steps, memory and disk from the config and the lengths of its sequences in tokens.

    Weights and gradients in the training format, two float32 AdamW moments a trained parameter; activations of about 34
    bytes a token, hidden unit and layer at two bytes a number (Korthikanti et al. 2022, arXiv:2205.05198, equation 1 without
    the attention term), and the logits with their gradient and float32 copy.
    """
    trainer, config = settings.trainer, files.config
    bytes_each = 4 if dtype_of(settings.model_load.dtype).name == "float32" else 2
    hidden, layers = int(config.get("hidden_size", 0)), int(config.get("num_hidden_layers", 0))
    trained = settings.peft.trained(files)
    fixed = files.parameters * bytes_each + trained * (bytes_each + 8)
    tokens = trainer.batch_size * max(lengths)
    inner = tokens * hidden * layers * 17 * bytes_each // (6 if trainer.gradient_checkpointing else 1)
    logits = tokens * int(config.get("vocab_size", 0)) * (bytes_each * 2 + 4)
    rows = trainer.batch_size * trainer.gradient_accumulation_steps
    steps = trainer.max_steps if trainer.max_steps > 0 else math.ceil(math.ceil(len(lengths) / rows) * trainer.epochs)
    checkpoint = trained * (bytes_each + 8)
    kept = math.ceil(steps / trainer.save_steps)
    if trainer.save_total_limit:
        kept = min(kept, trainer.save_total_limit + 1)
    output = Path(str(settings.output))
    return Estimate(steps, fixed + inner + logits, fixed, memory_there(), checkpoint, kept * checkpoint, free_bytes(output))


def refuse_impossible(needs: Estimate, settings: Train) -> None:
    """Warn where the estimate is above what is there, refuse where even its lower bound is.

    Raises:
        UserError: the weights alone, or one checkpoint alone, do not fit.
    """
    if needs.memory_least > needs.memory_there:
        raise UserError(
            f"weights, gradients and optimizer need {console.size(needs.memory_least)}, "
            f"{console.size(needs.memory_there)} of memory are free",
            settings.model,
            "train an adapter (peft=lora) or a smaller model",
        )
    if needs.checkpoint > needs.disk_there:
        raise UserError(
            f"one checkpoint needs {console.size(needs.checkpoint)}, {console.size(needs.disk_there)} of disk are free",
            str(settings.output),
            "free disk or choose another output=",
        )
    if needs.memory > needs.memory_there:
        console.warn(
            f"about {console.size(needs.memory)} of memory may be needed, {console.size(needs.memory_there)} are free: "
            "lower trainer.batch_size or algo.max_tokens, or set trainer.gradient_checkpointing=true"
        )
    if needs.disk > needs.disk_there:
        console.warn(
            f"about {console.size(needs.disk)} of disk may be needed, {console.size(needs.disk_there)} are free: "
            "set trainer.save_total_limit or a larger trainer.save_steps"
        )


def memory_there() -> int:
    """Bytes of memory that are free, of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)
