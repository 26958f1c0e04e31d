"""The frozen model that a trained one is held to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files
from mlops_llm.train import ranks
from mlops_llm.train.needs import Held, number_bytes

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.job import Job


class Reference(Enum):
    """Which model is the reference."""

    auto = "auto"
    start = "start"
    base = "base"


def refuse_base(which: Reference, adapter: bool) -> None:
    """See that the base can be the reference.

    Raises:
        UserError: no adapter is trained that could be left off.
    """
    if which is Reference.base and not adapter:
        remedy = "train an adapter (peft=lora), or leave it out: the start model is the reference"
        raise UserError("is base, and no adapter is trained that could be left off", "algo.reference", remedy)


def refuse_dropout(peft: Any, algo: str, other: str = "its reference") -> None:
    """See that no dropout is wanted where the model and what it is compared with are to see the same.

    Raises:
        UserError: it is.
    """
    if peft.trains_adapter and peft.dropout:
        what = f"is {peft.dropout}, and algo={algo} compares the model with {other}, both without dropout"
        raise UserError(what, "peft.dropout", "leave it out")


def say_dropout(job: Job, other: str) -> None:
    """Say so where TRL turns off the dropout of an adapter that is trained on."""
    dropout = job.model.peft_config["default"].lora_dropout
    if dropout:
        console.say(f"the adapter's dropout of {dropout} is off: the model and {other} are to see the same")


def freeze(trainer: Any, job: Job) -> None:
    """Make the reference of a TRL trainer that loads its own the start model as it is now, and keep it out of checkpoints."""
    if trainer.ref_model is not None:
        trainer.ref_model.load_state_dict(job.model.state_dict())
    if job.adapter:
        job.model.save_pretrained = partial(job.model.save_pretrained, selected_adapters=["default"])


def shared(dataset: Any, folder: Path) -> Any:
    """Let TRL's processes find what the first of them computes of a dataset in memory: in a file in `folder`."""
    if dataset is not None and ranks.count() > 1:
        folder.mkdir(parents=True, exist_ok=True)
        dataset._get_cache_file_path = lambda fingerprint: str(folder / f"{fingerprint}.arrow")
    return dataset


def against(job: Job, which: Reference, build: Callable[[Any], Any], *, copied: bool) -> Any:
    """Build a TRL trainer that compares with a reference.

    All weights trained: the reference is a frozen copy of the start model. An adapter trained: it is the base with the adapter
    off where the adapter is new (then base and start are the same) or `base` is wanted, else a frozen copy of the adapter.

    Args:
        job: what is trained.
        which: the reference.
        build: makes the trainer from the reference model, or from None.
        copied: a copy of all weights is needed; else the trainer asks the start model before it changes.
    """
    if not job.adapter:
        copied = copied or "deepspeed" in job.arguments or "fsdp" in job.arguments  # the start model itself is divided
        return build(copy.deepcopy(job.model).requires_grad_(False).eval() if copied else None)
    say_dropout(job, "its reference")
    trainer = build(None)  # TRL copies the adapter as it is now to a frozen one called "ref"
    if job.new_adapter or which is Reference.base:
        job.model.delete_adapter("ref")
    # A checkpoint holds what is trained; the reference is loaded from the start model again.
    job.model.save_pretrained = partial(job.model.save_pretrained, selected_adapters=["default"])
    return trainer


def held(settings: Train, files: Files, which: Reference, *, copied: bool) -> Sequence[Held]:
    """What `against` keeps in memory, and how often it is asked."""
    if not settings.peft.trains_adapter:
        asked = float(copied)  # precomputed, it is asked before the first step
        there = copied or settings.distributed.sharded
        return [Held("reference", files.parameters, bytes_each=number_bytes(settings), passes=asked)] if there else []
    return adapted(settings, files, 1.0, new=which is Reference.base)


def adapted(settings: Train, files: Files, passes: float, *, new: bool = False) -> Sequence[Held]:
    """The reference of an adapter: the model itself with the adapter off, or a frozen copy of the one that it began with."""
    copy = 0 if new or settings.peft.base(files) is files else settings.peft.trained(files)
    return [Held("reference", files.parameters, bytes_each=0, passes=passes), Held("reference adapter", copy, passes=0)]
