"""`distributed=zero3`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import need
from mlops_llm.train.distributed import Distributed, Numbers, Several

if TYPE_CHECKING:
    from mlops_llm.train.config import Train


@component("distributed", "zero3")
@dataclass
class Zero3(Several):
    """ZeRO stage 3 (Rajbhandari et al. 2020; DeepSpeed): weights, gradients and optimizer lie in parts on the GPUs.

    Checkpoints hold whole weights. No sample answers are written: no process has a whole model to answer with.
    """

    sharded: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("DEEPSPEED",)
    on_cpu: ClassVar[bool] = False

    offload: bool = False
    """Keep optimizer and weights in the CPU's memory: less of the GPU's, and slower."""

    @property
    def offloads(self) -> bool:
        """Weights, gradients and optimizer lie in the CPU's memory."""
        return self.offload

    def numbers(self, each: int) -> Numbers:
        """Sixteen bytes: weights of 16 bits have copies of 32, on which the optimizer works (Rajbhandari et al., section 3)."""
        return Numbers(4 if each == 4 else each + 4, each, 8)

    def lighter(self) -> Mapping[str, Distributed]:
        """Offloaded."""
        return {} if self.offload else {"distributed.offload=true": replace(self, offload=True)}

    def require(self) -> None:
        """See that there are GPUs, and DeepSpeed.

        Raises:
            UserError: there are not.
        """
        super().require()
        need("deepspeed", "zero3")

    def arguments(self, settings: Train) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes; `auto` is what the Trainer knows."""
        place = {"device": "cpu" if self.offload else "none"}
        stage = {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "offload_optimizer": place,
            "offload_param": place,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
        config = {
            "zero_optimization": stage,
            "bf16": {"enabled": "auto"},
            "fp16": {"enabled": "auto"},
            "gradient_clipping": "auto",
            "gradient_accumulation_steps": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "train_batch_size": "auto",
        }
        return {"deepspeed": config}
