"""`distributed=fsdp2`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.train import distributed
from mlops_llm.train.distributed import Distributed, Numbers, Several

if TYPE_CHECKING:
    from mlops_llm.train.config import Train


@component("distributed", "fsdp2")
@dataclass
class Sharded(Several):
    """Fully sharded data parallel (Zhao et al. 2023; PyTorch's FSDP2): weights, gradients and optimizer lie in parts.

    Checkpoints hold whole weights. No sample answers are written: no process has a whole model to answer with.
    """

    sharded: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("FSDP",)

    cpu_offload: bool = False
    """Keep parts that are not in use in the CPU's memory: less of the GPU's, and slower."""

    @property
    def offloads(self) -> bool:
        """Weights, gradients and optimizer lie in the CPU's memory."""
        return self.cpu_offload

    def numbers(self, each: int) -> Numbers:
        """In 32 bits on GPUs: accelerate raises what is trained to that (`fsdp2_prepare_model`), and computes in 16."""
        return super().numbers(4 if distributed.gpus() else each)

    def lighter(self) -> Mapping[str, Distributed]:
        """Offloaded."""
        return {} if self.cpu_offload else {"distributed.cpu_offload=true": replace(self, cpu_offload=True)}

    def join(self) -> None:
        """Let processes without GPUs share too: PyTorch's FSDP2 can (over gloo), and accelerate only asks GPUs for it."""
        if distributed.gpus():
            return
        from accelerate.state import AcceleratorState, DistributedType, PartialState

        begin = AcceleratorState.__init__

        def begun(state: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
            begin(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
            if fsdp_plugin is not None and state.distributed_type == DistributedType.MULTI_CPU:
                state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
                state.fsdp_plugin = fsdp_plugin

        AcceleratorState.__init__ = begun

    def arguments(self, settings: Train) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes."""
        how = {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "reshard_after_forward": True,
            "state_dict_type": "FULL_STATE_DICT",
            "cpu_offload": self.cpu_offload,
            "activation_checkpointing": settings.trainer.gradient_checkpointing,
        }
        return super().arguments(settings) | {"fsdp": True, "fsdp_config": how, "gradient_checkpointing": False}
