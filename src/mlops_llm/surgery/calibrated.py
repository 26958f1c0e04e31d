"""The plan of a quantization that sees rows, in the Python where its packages live."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Optional

from mlops_llm.models import load, template
from mlops_llm.models.load import Dtype
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery import companions, elsewhere
from mlops_llm.surgery.calibration import Calibrating, Calibration, drawn
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.forms import again, converted, linears, write
from mlops_llm.surgery.planning import BYTES, Planned, Source, dtype_of, stored
from mlops_llm.surgery.quantizing import Making, Quantizing, said_of, single
from mlops_llm.surgery.rounding import Corrected
from mlops_llm.surgery.weights import opened


@dataclass
class Calibrated(Quantizing, Calibrating):
    """What methods share that see rows: which they are, and the Python in which the method lives."""

    python: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Python of an environment with the method's packages, which do not live beside vLLM's; null is this one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        Quantizing.__post_init__(self)
        Calibrating.__post_init__(self)

    def rows(self, request: Surgery, parent: Source, layers: Mapping[str, Shape]) -> Calibration:
        """The rows as the model sees them.

        Raises:
            UserError: none are named, there are too few of them, or they are too short.
        """
        tokenizer = load.tokenizer_of(parent.files)
        template.ensure(tokenizer, parent.ref)
        return drawn(self, request, tokenizer, layers)


@dataclass(frozen=True)
class Way:
    """How layers are quantized."""

    library: str
    """`llmcompressor` or `optimum`."""
    method: str
    """For a person."""
    bits: int
    size: int | None
    """Numbers that share a scale; None is a whole row."""


def planned(operation: Calibrated, request: Surgery, python: str, way: Callable[[Mapping[str, Shape]], Way]) -> Planned:
    """The plan.

    Args:
        operation: with its limits and rows.
        request: the command.
        python: that has the library.
        way: decides how, from the layers that are quantized.

    Raises:
        UserError: the model cannot be quantized so, or the rows are too few or too short.
    """
    parent = single(request)
    weights = opened(parent.files, request.model_load)
    layers = linears(parent.files, weights)
    how = way(layers)
    rows = operation.rows(request, parent, layers)
    dtype = dtype_of(request, parent.files)
    facts = {
        "stored as": f"{stored(parent.files).name} -> {how.method}",
        **said_of(len(layers), dtype.name),
        **({"groups": f"of {how.size}"} if how.size else {}),
        "calibrated on": str(rows),
        "carried out by": f"{how.library} in {python}",
    }
    weights.close()
    widest = max(each.shape[-1] for each in layers.values())
    whole, largest = (of(each.bytes for each in weights.shapes.values()) for of in (sum, max))
    making = Making(
        how.method,
        partial(_write, parent, request, how, rows, dtype, python, len(layers)),
        partial(again, dict.fromkeys(layers, Corrected(how.bits, how.size)), weights),
        _bytes(parent, layers, how, dtype),
        2 * whole + 3 * 4 * widest * widest,
        facts,
        {"calibration.digest": rows.digest},
        {"op=quantize_int8" if how.bits == 8 else "op=quantize_int4": 4 * largest},
    )
    return replace(operation.planned(request, parent, making), inputs=rows.inputs, pins=rows.pins)


def _bytes(parent: Source, layers: Mapping[str, Shape], way: Way, dtype: Dtype) -> int:
    """Of the result's weights."""
    inside = sum(each.shape[0] * each.shape[1] for each in layers.values())
    plain = parent.files.parameters - inside + inside // (way.size or 10**9)
    return plain * BYTES[dtype] + inside * way.bits // 8


def _write(
    parent: Source, request: Surgery, way: Way, rows: Calibration, dtype: Dtype, python: str, layers: int, folder: Path
) -> None:
    """Fill an empty folder. What is quantized is a whole folder in the wanted format, so adapters are merged first."""
    log = Path(request.folder) / "quantize.log" if request.folder else None
    with tempfile.TemporaryDirectory(prefix="mlops_llm-plain-") as name:
        weights = opened(parent.files, request.model_load)
        write(converted(weights, dtype, parent.ref), weights, parent.files, Path(name), dtype=dtype, most=10**15)
        asked: dict[str, Any] = {
            "library": way.library,
            "source": name,
            "output": str(folder),
            "dtype": dtype.name,
            "bits": way.bits,
            "group_size": way.size,
            "rows": rows.rows,
            "pad": load.tokenizer_of(parent.files).pad_token_id,
        }
        elsewhere.quantize(python, asked, layers, log)
    companions.copy(parent.files, folder)
