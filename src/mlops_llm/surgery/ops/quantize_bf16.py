"""`op=quantize_bf16`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.forms import converted
from mlops_llm.surgery.planning import Planned, stored
from mlops_llm.surgery.quantizing import Quantizing, single, streamed


@component("op", "quantize_bf16")
@dataclass
class QuantizeBf16(Quantizing):
    """All numbers in bfloat16: the range of float32 with 8 bits of precision, made for GPUs."""

    most_kl: float = 0.02
    least_agreement: float = 0.95
    most_loss: float = 1.05

    def plan(self, request: Surgery) -> Planned:
        """See that the numbers are in another format yet."""
        if request.dtype not in (Dtype.auto, Dtype.bfloat16):
            raise UserError(f"is {request.dtype.name}, and the operation makes bfloat16", "dtype", "leave it out")
        if stored(single(request).files) is Dtype.bfloat16:
            raise UserError("its numbers are bfloat16 already", request.one, "nothing is to be done")
        return streamed(
            self,
            request,
            "bfloat16",
            lambda parent, weights, dtype: (converted(weights, dtype, parent.ref), {}),
            Dtype.bfloat16,
        )
