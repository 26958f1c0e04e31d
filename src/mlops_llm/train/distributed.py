"""How many processes train one model, and how they share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.train import nodes

if TYPE_CHECKING:
    from mlops_llm.train.config import Train


class Numbers(NamedTuple):
    """Bytes that there are for each number that is trained."""

    weights: int
    """With its 32-bit copy, where there is one."""
    gradients: int
    moments: int
    """Two of AdamW."""


@component.component("distributed", "none")
@dataclass
class Distributed:
    """One process, on the GPU where there is one; and what every choice of the group `distributed` can tell."""

    several: ClassVar[bool] = False
    """Processes of their own do the training."""
    sharded: ClassVar[bool] = False
    """Each process holds a part of the weights, so that none can be used alone."""

    @property
    def count(self) -> int:
        """How many processes train."""
        return 1

    def numbers(self, each: int) -> Numbers:
        """What a trained number takes that is loaded in so many bytes: all of it is kept as it was loaded."""
        return Numbers(each, each, 2 * each)

    def spread(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Bytes in one memory, a GPU's or without one the machine's, of what a process needs that trains alone."""
        return dict(parts)

    def offloaded(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Bytes of them in the machine's memory beside a GPU's."""
        return {}

    def lighter(self) -> Mapping[str, Distributed]:
        """This component with less of a GPU's memory and the same result: the override that says so -> the component."""
        return {}

    def sort(self, device: str) -> str:
        """A device with so many processes, as the record tells one sort of run from another."""
        return device

    def check(self, settings: Train) -> None:
        """See that the settings allow it, before anything is read.

        Raises:
            UserError: they do not; what they allow is named.
        """

    def require(self) -> None:
        """See that this machine allows it.

        Raises:
            UserError: it does not.
        """

    def same(self, before: str) -> None:
        """See that a resumed run has as many processes as it began with (empty where it did not say).

        Batches, their order and random states are those of so many processes.

        Raises:
            UserError: it has not.
        """

    def join(self) -> None:
        """Do what a process must that is one of several, before it has a model."""

    def arguments(self, settings: Train) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes."""
        return {}

    def facts(self, settings: Train) -> dict[str, str]:
        """What a person wants to know before the start."""
        return {}

    def confirm(self, trainer: Any) -> None:
        """See that a Trainer trains with as many processes as were asked for, and shares the model as was asked for.

        Raises:
            UserError: it does not.
        """
        if trainer.accelerator.num_processes != 1:
            remedy = "start the command plainly, with distributed=ddp"
            raise UserError(f"{trainer.accelerator.num_processes} processes were started from outside", "distributed", remedy)


_OWN = ("process", "activations")
"""Needs that every process has of its own, however the model is divided."""


@dataclass
class Several(Distributed):
    """What every way has that starts several processes, on this machine or on several."""

    several: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]]
    """What accelerate may call it."""
    on_cpu: ClassVar[bool] = True
    """Processes without GPUs can do it."""

    processes: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """How many on a machine, one a GPU; null takes every GPU of it. Without a GPU they share the CPU."""
    port: Optional[int] = None  # noqa: UP045
    """Port of this machine at which they find each other; null takes a free one."""
    nodes: int = 1
    """Machines that train together, with as many processes each: of the SLURM job that this command is in, or `hosts`."""
    hosts: list[str] = field(default_factory=list)
    """The other machines, as ssh calls them; they see the same folders and the same Python under the same paths as this one."""
    address: Optional[str] = None  # noqa: UP045
    """Name or address of this machine for the others; null takes its host name."""
    restarts: int = 0
    """How often all processes start again, from the last checkpoint, when one of them dies."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.processes is not None and self.processes < 1:
            raise UserError(f"is {self.processes}", "distributed.processes", "give a whole number from 1, or null")
        if self.port is not None and not 0 < self.port < 65536:
            raise UserError(f"is {self.port}", "distributed.port", "give a number from 1 to 65535, or null")
        if self.restarts < 0:
            raise UserError(f"is {self.restarts}", "distributed.restarts", "give a whole number from 0")
        if self.nodes < 1:
            raise UserError(f"is {self.nodes}", "distributed.nodes", "give a whole number from 1")
        if self.hosts and self.nodes != len(self.hosts) + 1:
            remedy = f"give {len(self.hosts) + 1}: this machine and {', '.join(self.hosts)}"
            raise UserError(f"is {self.nodes}", "distributed.nodes", remedy)
        if bad := next((host for host in self.hosts if not host.strip() or host.startswith("-")), None):
            raise UserError(f"'{bad}' is no machine", "distributed.hosts", "name each as ssh does")

    @property
    def on_each(self) -> int:
        """How many processes train on each machine."""
        return self.processes or max(1, gpus())

    @property
    def count(self) -> int:
        """How many processes train."""
        return self.on_each * self.nodes

    @property
    def offloads(self) -> bool:
        """What is divided lies in the CPU's memory while it is not in use."""
        return False

    def spread(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Bytes in one memory: of a GPU for one process, without one for all; what is divided is there once in all of them."""
        together = 1 if gpus() else self.on_each
        divided, away = self.count if self.sharded else 1, self.offloaded(parts)
        left = {name: size for name, size in parts.items() if name not in away}
        return {name: size * together // (1 if name in _OWN else divided) for name, size in left.items()}

    def offloaded(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Bytes of what the processes of this machine together keep in its memory, with a GPU for each."""
        if not (self.offloads and gpus()):
            return {}
        return {name: size // self.nodes for name, size in parts.items() if name not in _OWN}

    def sort(self, device: str) -> str:
        """The device with the number of processes."""
        return f"{device}, {self.count} processes"

    def check(self, settings: Train) -> None:
        """See that the algorithm allows it, and the average of the weights.

        Raises:
            UserError: it does not; what it allows is named.
        """
        mine = component.name_of(self)
        if mine not in settings.algo.distributed:
            allowed = " or ".join(f"distributed={name}" for name in ("none", *settings.algo.distributed))
            raise UserError(
                f"algo={component.name_of(settings.algo)} cannot be trained so", f"distributed={mine}", f"take {allowed}"
            )
        if self.sharded and settings.peft.quantized:
            raise UserError(f"is not divided by distributed={mine}", "peft=qlora", "take peft=lora, or distributed=ddp")
        for place, value in (("ema.decay", settings.ema.decay), ("evaluate.every", settings.evaluate.every)):
            if self.sharded and value:
                what = f"is given, and with distributed={mine} no process has the whole model that this needs"
                raise UserError(what, place, "leave it out, or take distributed=ddp")

    def require(self) -> None:
        """See that there are GPUs for them, or that they may share the CPU, as many as are given; and a way to other machines.

        Raises:
            UserError: there are not.
        """
        there, mine = gpus(), component.name_of(self)
        if not there and not self.on_cpu:
            raise UserError("needs GPUs, and this machine has none", f"distributed={mine}", "take distributed=ddp")
        if not there and self.processes is None:
            remedy = "say how many processes share the CPU, e.g. distributed.processes=2"
            raise UserError("is null, and this machine has no GPU", "distributed.processes", remedy)
        if there and self.on_each > there:
            raise UserError(
                f"is {self.on_each}, and this machine has {there} GPUs", "distributed.processes", f"give at most {there}"
            )
        nodes.require(self)

    def same(self, before: str) -> None:
        """See that as many train as before: batches, their order and random states are those of so many processes.

        Raises:
            UserError: it has not.
        """
        if before and int(before) != self.count:
            remedy = f"resume it where {before} are, or start a new run from runs:/NAME/last"
            raise UserError(
                f"the run began with {before} processes, and here it has {self.count}", "distributed.processes", remedy
            )

    def arguments(self, settings: Train) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes."""
        return {} if gpus() else {"ddp_backend": "gloo"}

    def facts(self, settings: Train) -> dict[str, str]:
        """What a person wants to know before the start."""
        trainer, unit = settings.trainer, "answers" if settings.algo.rewarded else "rows"
        parts = [(trainer.batch_size, unit), (self.count, "processes"), (trainer.gradient_accumulation_steps, "passes")]
        whole = trainer.batch_size * self.count * trainer.gradient_accumulation_steps
        found = {"batch": " x ".join(f"{number} {what}" for number, what in parts) + f" = {whole} {unit} a step"}
        if self.sharded and settings.samples.count:
            found["sample answers"] = "none: no process has the whole model"
        return found

    def confirm(self, trainer: Any) -> None:
        """See that the processes found each other.

        Raises:
            UserError: they are not as many as were asked for, or share the model in another way.
        """
        found, kind = trainer.accelerator.num_processes, trainer.accelerator.distributed_type.name
        if found != self.count or (kind not in self.kinds and not (found == 1 and kind == "NO")):
            wanted = f"{self.count} processes ({' or '.join(self.kinds)})"
            raise UserError(f"{wanted} were asked for, and there are {found} ({kind})", "distributed")


def save_tied_once(trainer: Any) -> None:
    """Keep tied tensors out of a Trainer's checkpoints a second time: put together from parts, both no longer look like one."""
    tied, save = set(getattr(trainer.model, "all_tied_weights_keys", None) or ()), trainer._save

    def once(output_dir: Any = None, state_dict: Any = None) -> None:
        kept = state_dict and {name: tensor for name, tensor in state_dict.items() if name not in tied}
        save(output_dir, kept)

    trainer._save = once


def gpus() -> int:
    """How many GPUs this machine has."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
