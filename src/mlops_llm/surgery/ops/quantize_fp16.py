"""`op=quantize_fp16`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.forms import converted
from mlops_llm.surgery.planning import Planned, stored
from mlops_llm.surgery.quantizing import Quantizing, single, streamed


@component("op", "quantize_fp16")
@dataclass
class QuantizeFp16(Quantizing):
    """All numbers in float16: half the size of float32; numbers above 65504 are refused."""

    most_kl: float = 0.01
    least_agreement: float = 0.97
    most_loss: float = 1.02

    def plan(self, request: Surgery) -> Planned:
        """See that the numbers are in another format yet."""
        if request.dtype not in (Dtype.auto, Dtype.float16):
            raise UserError(f"is {request.dtype.name}, and the operation makes float16", "dtype", "leave it out")
        if stored(single(request).files) is Dtype.float16:
            raise UserError("its numbers are float16 already", request.one, "nothing is to be done")
        return streamed(
            self, request, "float16", lambda parent, weights, dtype: (converted(weights, dtype, parent.ref), {}), Dtype.float16
        )
