"""Weights as they lie in a folder: how many there are, and whether all of them do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.files import check_part, read_object
from mlops_llm.models import packed, tensors


def counted(folder: Path, stem: str, allow_pickle: bool, config: dict[str, Any] | None = None) -> tuple[int, int]:
    """Parameters and bytes of a folder's weights, as their headers tell.

    Args:
        folder: of the model or the adapter.
        stem: how its files' names begin: `model` or `adapter_model`.
        allow_pickle: pickled files count too.
        config: of the model, which tells how packed weights are packed.

    Raises:
        UserError: weights are missing, broken, or pickled.
    """
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    if stem == "adapter_model" and not (folder / f"{stem}.safetensors").is_file():
        files = []  # whatever else is called so, PEFT opens the pickled file
    if not files and (one := packed.gguf_file(folder)):
        inside = packed.gguf_tensors(one)
        return sum(math.prod(each.shape) for each in inside), sum(each.bytes for each in inside)
    if not files:
        if not any(folder.glob("*.bin")):
            raise UserError(f"holds no weights ({stem}.safetensors)", str(folder), "copy the weights there")
        if not allow_pickle:
            raise UserError(
                "holds pickled weights, and loading them can run code",
                str(folder),
                "convert them to safetensors, or trust them: model_load.allow_pickle=true",
            )
        size = sum(file.stat().st_size for file in folder.glob("*.bin"))
        return size // 4, size
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        for name in sorted(map(str, set(_weight_map(index).values()))):
            check_part(name, str(index), "copy the weights again")
            if not (folder / name).is_file():
                raise UserError(f"{name} is missing, which the index names", str(folder), "copy the weights again")
    shapes, size = dict[str, tuple[int, ...]](), 0
    for file in files:
        held, counted = _header(file)
        shapes |= held
        size += counted
    return packed.parameters(config or {}, shapes), size


def _weight_map(index: Path) -> dict[str, Any]:
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise UserError("names no files of weights", str(index), "copy the weights again")
    return found


def _header(file: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes and bytes of a safetensors file's tensors; it is as long as its header says."""
    places = tensors.places(file)
    shapes = {name: shape for name, (_, shape, _, _) in places.items()}
    return shapes, sum(stop - start for _, _, start, stop in places.values())


def pickled(folder: Path) -> bool:
    """Whether all weights of a folder are pickled."""
    return not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin"))
