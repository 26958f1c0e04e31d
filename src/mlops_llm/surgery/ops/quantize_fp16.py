"""`op=quantize_fp16`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Planned
from mlops_llm.surgery.quantizing import Quantizing, half


@component("op", "quantize_fp16")
@dataclass
class QuantizeFp16(Quantizing):
    """All numbers in float16: half the size of float32; numbers above 65504 are refused."""

    most_kl: float = 0.01
    least_agreement: float = 0.97
    most_loss: float = 1.02

    def plan(self, request: Surgery) -> Planned:
        """See that the numbers are in another format yet."""
        return half(self, request, Dtype.float16)
