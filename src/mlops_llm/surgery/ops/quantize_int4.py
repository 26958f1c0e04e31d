"""`op=quantize_int4`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError, need
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.forms import Form, group_size, linears
from mlops_llm.surgery.int4 import int4
from mlops_llm.surgery.planning import Planned, Source
from mlops_llm.surgery.quantizing import Quantizing, said_of, streamed
from mlops_llm.surgery.weights import Weights


@component("op", "quantize_int4")
@dataclass
class QuantizeInt4(Quantizing):
    """Linear layers in 4 bits, rounded to the nearest, with a scale for each group (compressed-tensors, vLLM's own form).

    It needs no rows; op=quantize_w4a16 corrects the errors of rounding on some and loses less.
    """

    group_size: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Numbers of a row that share a scale; null is the largest of 128, 64, 32, 16 that divides every layer's columns."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.group_size is not None and self.group_size < 2:
            raise UserError(f"is {self.group_size}", "op.group_size", "give a whole number from 2, or null")

    def plan(self, request: Surgery) -> Planned:
        """See that groups divide every layer."""
        need("compressed_tensors", "surgery")
        return streamed(self, request, "int4 in groups (compressed-tensors)", self._form)

    def _form(self, parent: Source, weights: Weights, dtype: Dtype) -> tuple[Form, Mapping[str, str]]:
        layers = linears(parent.files, weights)
        size = group_size(layers, self.group_size)
        return int4(weights, layers, dtype, parent.ref, size=size), {**said_of(len(layers), dtype.name), "groups": f"of {size}"}
