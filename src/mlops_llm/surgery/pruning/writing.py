"""The weights that stay, written one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.models.tensors import DTYPES, Shape, ShardWriter, by_layer, cast
from mlops_llm.surgery.pruning import as_llama
from mlops_llm.surgery.pruning.cut import Cut
from mlops_llm.surgery.pruning.layout import Unit
from mlops_llm.surgery.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """A tensor of the result."""

    old: str
    """The tensor that it is cut from."""
    shape: Shape
    new_zeros: bool = False
    """It is no part of the old one, only zeros of its number format."""


def pieces(cut: Cut, shapes: Mapping[str, Shape], dtype: str | None = None) -> dict[str, Piece]:
    """What the result holds, by name, sorted.

    Args:
        cut: what stays.
        shapes: of the model's tensors.
        dtype: number format of the result, by torch's name; None keeps each tensor's own.
    """
    found = {}
    for old, shape in shapes.items():
        new = cut.name(old)
        if new is None:
            continue
        kept = _sized(shape, cut.shape(old, shape.shape))
        found[new] = Piece(old, cast(kept, dtype) if dtype else kept)
        if is_llama(cut) and (bias := as_llama.output_bias(new)):
            found[bias] = Piece(old, _sized(found[new].shape, (cut.layout.hidden,)), new_zeros=True)
    return dict(sorted(found.items()))


def is_llama(cut: Cut) -> bool:
    """Whether the result has to be written as another family."""
    return cut.unit is Unit.group and as_llama.needed(cut.layout.family)


def config_of(cut: Cut, config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of the result."""
    made = cut.config(config)
    return as_llama.config(made) if is_llama(cut) else made


def written(source: Weights, cut: Cut, folder: Path, most: int, dtype: str | None = None) -> str:
    """Write the weights that stay; memory is one tensor.

    Args:
        source: the model's weights.
        cut: what stays.
        folder: where the files go.
        most: bytes of a file.
        dtype: as for `pieces`.

    Returns:
        The digest of the weights.

    Raises:
        UserError: a file of the model ends too early.
    """
    wanted = pieces(cut, source.shapes, dtype)
    writer = ShardWriter(folder, {name: piece.shape for name, piece in wanted.items()}, most)
    progress = console.Progress("tensors", len(wanted))
    for number, (name, layer) in enumerate(by_layer(list(wanted)), 1):
        writer.write(name, made(source, cut, wanted[name]))
        progress.at(number, layer)
    progress.close()
    return writer.close()


def made(source: Weights, cut: Cut, piece: Piece) -> Tensor:
    """One tensor of the result."""
    import torch

    dtype = getattr(torch, DTYPES[piece.shape.dtype])
    if piece.new_zeros:
        return torch.zeros(piece.shape.shape, dtype=dtype)
    return cut.tensor(piece.old, source.read(piece.old)).to(dtype)


def _sized(shape: Shape, sizes: tuple[int, ...]) -> Shape:
    return Shape(shape.dtype, sizes, shape.bytes // max(1, math.prod(shape.shape)) * math.prod(sizes))
