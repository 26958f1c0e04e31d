"""`op=quantize_bf16`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Planned
from mlops_llm.surgery.quantizing import Quantizing, half


@component("op", "quantize_bf16")
@dataclass
class QuantizeBf16(Quantizing):
    """All numbers in bfloat16: the range of float32 with 8 bits of precision, made for GPUs."""

    most_kl: float = 0.02
    least_agreement: float = 0.95
    most_loss: float = 1.05

    def plan(self, request: Surgery) -> Planned:
        """See that the numbers are in another format yet."""
        return half(self, request, Dtype.bfloat16)
