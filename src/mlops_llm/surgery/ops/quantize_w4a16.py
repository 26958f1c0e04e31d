"""`op=quantize_w4a16`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from mlops_llm.component import component
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.calibrated import Calibrated, Way, planned
from mlops_llm.surgery.compressor import python
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.forms import group_size
from mlops_llm.surgery.planning import Planned


@component("op", "quantize_w4a16")
@dataclass
class QuantizeW4A16(Calibrated):
    """Weights in 4 bits by GPTQ (Frantar et al. 2023, arXiv:2210.17323) in llm-compressor's form, which is vLLM's own.

    What rounding a column does to a layer's outputs on the calibration rows is made up for by the columns after it.
    """

    most_loss: float = 1.4
    group_size: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Numbers of a row that share a scale; null is the largest of 128, 64, 32, 16 that divides every layer's columns."""

    def plan(self, request: Surgery) -> Planned:
        """See that the packages, the rows and the layers are as they must be."""
        return planned(self, request, python(self.python), self._way)

    def _way(self, layers: Mapping[str, Shape]) -> Way:
        return Way("llmcompressor", "W4A16 (GPTQ, compressed-tensors)", 4, group_size(layers, self.group_size))
