"""Weights that are stored in fewer bits than they are counted with: quantized folders, and GGUF files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from mlops_llm.errors import UserError, need

if TYPE_CHECKING:
    from mlops_llm.models.load import Files

GGUF, TORCHAO, COMPRESSED, GPTQ = "GGUF", "torchao", "compressed-tensors", "gptq"
_BESIDE = re.compile(r"(_scale|_zero_point|\.scales|\.qzeros|\.g_idx|_g_idx|_shape|\.weight_shape)$")
"""Ends the names of tensors that only say how others are read."""
_WORDS = re.compile(r"\.(weight_packed|qweight)$")
"""Ends the names of tensors whose 32-bit words hold several numbers each."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a GGUF file."""

    name: str
    shape: tuple[int, ...]
    """As torch has it: rows first."""
    kind: str
    """`F32`, `F16`, `Q8_0`, ..."""
    bytes: int


def form(config: Mapping[str, Any]) -> str:
    """How the weights beside a config.json are quantized: `torchao`, `compressed-tensors`, `gptq`, ...; empty of plain ones."""
    told = config.get("quantization_config")
    return str(told.get("quant_method") or "?") if isinstance(told, Mapping) else ""


def bits(config: Mapping[str, Any]) -> int:
    """Bits of a quantized number; 8 where the config does not say."""
    told = _object(config.get("quantization_config"))
    inner = [_object(_object(each).get("weights")).get("num_bits") for each in _object(told.get("config_groups")).values()]
    own = told.get("bits")
    return own if _is_width(own) else max((each for each in inner if _is_width(each)), default=8)


def _object(value: Any) -> Mapping[str, Any]:
    """What a config says at a place, if it is an object."""
    return value if isinstance(value, Mapping) else {}


def _is_width(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= 32


def parameters(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> int:
    """Numbers of a model from the shapes of its stored tensors: scales do not count, of packed words what is in them does."""
    if not form(config):
        return sum(math.prod(shape) for shape in shapes.values())
    each_word = 32 // bits(config)
    return sum(
        math.prod(shape) * (each_word if _WORDS.search(name) else 1)
        for name, shape in shapes.items()
        if not _BESIDE.search(name)
    )


def quiet() -> None:
    """Silence what torchao says of GPU kernels that a CPU build has not, and torch of torchao."""
    import logging

    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def refuse(files: Files) -> None:
    """See that a model's numbers are stored plainly, so that they can be trained and turned into another form.

    Raises:
        UserError: they are quantized.
    """
    under = files.whole
    told = form(under.config) or (GGUF if gguf_file(under.place.folder) else "")
    if told:
        raise UserError(f"its weights are quantized ({told})", files.place.ref, "take the model that it was made of")


def gguf_file(folder: Path) -> Path | None:
    """The one GGUF file of a folder without safetensors; None where there is none."""
    found = sorted(folder.glob("*.gguf"))
    if not found or any(folder.glob("*.safetensors")):
        return None
    if len(found) > 1:
        raise UserError(f"holds {len(found)} GGUF files", str(folder), "leave one there")
    return found[0]


def gguf_tensors(path: Path) -> list[Stored]:
    """What a GGUF file holds, without its numbers.

    Raises:
        UserError: it is cut off or no GGUF file.
    """
    need("gguf", "surgery")
    import gguf

    try:
        found = gguf.GGUFReader(path).tensors
    except Exception as error:
        raise UserError("is no whole GGUF file", str(path), "export it again") from error
    return [
        Stored(each.name, tuple(int(side) for side in reversed(each.shape)), each.tensor_type.name, int(each.n_bytes))
        for each in found
    ]
