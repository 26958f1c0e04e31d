"""`op=quantize_w8a16`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.calibrated import Calibrated, Way, planned
from mlops_llm.surgery.compressor import python
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Planned


@component("op", "quantize_w8a16")
@dataclass
class QuantizeW8A16(Calibrated):
    """Weights in 8 bits by GPTQ (Frantar et al. 2023, arXiv:2210.17323) in llm-compressor's form, which is vLLM's own.

    A scale for each row. vLLM has no kernel for it on a CPU: take op=quantize_int8 there.
    """

    most_kl: float = 0.05
    least_agreement: float = 0.9
    most_loss: float = 1.05

    def plan(self, request: Surgery) -> Planned:
        """See that the packages, the rows and the layers are as they must be."""
        return planned(self, request, python(self.python), self._way)

    def _way(self, layers: Mapping[str, Shape]) -> Way:
        return Way("llmcompressor", "W8A16 (GPTQ, compressed-tensors)", 8, None)
