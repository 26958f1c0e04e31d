"""`distributed=ddp`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component
from mlops_llm.train.distributed import Several

if TYPE_CHECKING:
    from mlops_llm.train.config import Train


@component("distributed", "ddp")
@dataclass
class Replicated(Several):
    """Data parallel: each process has the whole model and its own rows, gradients are averaged (Li et al. 2020)."""

    kinds: ClassVar[tuple[str, ...]] = ("MULTI_GPU", "MULTI_CPU")

    def arguments(self, settings: Train) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes."""
        return super().arguments(settings) | {"ddp_find_unused_parameters": False}
