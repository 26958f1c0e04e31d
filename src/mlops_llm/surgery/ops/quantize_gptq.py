"""`op=quantize_gptq`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.calibrated import Calibrated, Way, planned
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.elsewhere import interpreter
from mlops_llm.surgery.forms import group_size
from mlops_llm.surgery.planning import Planned

_BITS = (2, 4, 8)


@component("op", "quantize_gptq")
@dataclass
class QuantizeGptq(Calibrated):
    """Weights by GPTQ (Frantar et al. 2023, arXiv:2210.17323) in the form of AutoGPTQ, through optimum and gptqmodel.

    transformers needs gptqmodel to load it, vLLM does not. op=quantize_w4a16 is the same method in vLLM's newer form.
    """

    most_loss: float = 1.4
    bits: int = 4
    """2, 4 or 8."""
    group_size: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Numbers of a row that share a scale; null is the largest of 128, 64, 32, 16 that divides every layer's columns."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.bits not in _BITS:
            raise UserError(f"is {self.bits}", "op.bits", f"one of: {', '.join(map(str, _BITS))}")

    def plan(self, request: Surgery) -> Planned:
        """See that the packages, the rows and the layers are as they must be."""
        python = interpreter(
            self.python,
            ("gptqmodel", "optimum"),
            "TORCH setuptools wheel ninja numpy && quantize/bin/pip install --no-build-isolation TORCH 'optimum>=2.3,<3' "
            "gptqmodel 'transformers>=5.16.1,<5.20' accelerate datasets",
            "which is not in this environment (without torch pinned pip would bring CUDA's packages with it)",
        )
        return planned(self, request, python, self._way)

    def _way(self, layers: Mapping[str, Shape]) -> Way:
        return Way("optimum", f"GPTQ in {self.bits} bits", self.bits, group_size(layers, self.group_size))
