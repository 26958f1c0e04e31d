"""`op=export_gguf`."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.load import Dtype
from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.exporting import planned
from mlops_llm.surgery.gguf import Type
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Planned, source, under


@component("op", "export_gguf")
@dataclass
class ExportGguf:
    """Write a model as GGUF, for llama.cpp and what is built on it; llama.cpp answers before the checkpoint counts."""

    type: Type = Type.f16
    """Number format of the matrices: f32, f16, or q8_0 with 8 bits; norms and biases are float32."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def prepare(self, request: Surgery) -> Work | Result:
        """Plan the export of the model that is named."""
        return work(self.plan(request), dry_run=self.dry_run)

    def plan(self, request: Surgery) -> Planned:
        """See that the model's family, tokenizer and config have counterparts in llama.cpp.

        Raises:
            UserError: they have not.
        """
        if request.dtype is not Dtype.auto:
            raise UserError("is given, and a GGUF has its own", "dtype", "give op.type=f32, f16 or q8_0")
        one = source(request.one, request)
        return planned(request, one, self.type, under=under(one))
