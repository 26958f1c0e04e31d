"""`op=quantize_int8`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.errors import need
from mlops_llm.models.load import Dtype
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.forms import Form, linears
from mlops_llm.surgery.int8 import int8
from mlops_llm.surgery.planning import Planned, Source
from mlops_llm.surgery.quantizing import Quantizing, said_of, streamed
from mlops_llm.surgery.weights import Weights


@component("op", "quantize_int8")
@dataclass
class QuantizeInt8(Quantizing):
    """Linear layers in 8 bits with a scale for each row (torchao); transformers and vLLM load it, on a CPU too."""

    most_kl: float = 0.05
    least_agreement: float = 0.9
    most_loss: float = 1.05
    activations: bool = False
    """Bring what comes into a layer to 8 bits too, token by token, while the model runs: whole-number arithmetic."""

    def plan(self, request: Surgery) -> Planned:
        """See that the model has linear layers as transformers names them."""
        need("torchao", "surgery")
        method = "int8 (torchao)" if not self.activations else "int8 with int8 activations (torchao)"
        return streamed(self, request, method, self._form)

    def _form(self, parent: Source, weights: Weights, dtype: Dtype) -> tuple[Form, Mapping[str, str]]:
        layers = linears(parent.files, weights)
        return int8(weights, layers, dtype, parent.ref, activations=self.activations), said_of(len(layers), dtype.name)
