"""Linear layers as 4-bit whole numbers rounded to the nearest, with a scale for each group, as compressed-tensors stores them.

torchao packs 4 bits with a GPU's kernels alone, and elsewhere keeps each number in a byte; this form is half of that, is
written on any machine and is vLLM's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_llm.models.load import Dtype
from mlops_llm.models.tensors import Shape, cast
from mlops_llm.surgery.forms import Form, Pieces, rounded
from mlops_llm.surgery.rounding import Nearest
from mlops_llm.surgery.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

_TOP = 7.5
"""Whole numbers from zero to the largest of a group."""
_EACH_WORD = 8


def int4(weights: Weights, layers: Mapping[str, Shape], dtype: Dtype, ref: str, *, size: int) -> Form:
    """The form.

    Args:
        weights: the model's.
        layers: from `forms.linears`.
        dtype: number format of everything else, and of the scales.
        ref: the model, for a person.
        size: from `forms.group_size`.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    settings = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=size)
    scheme = QuantizationScheme(targets=["Linear"], weights=settings)
    shapes, origins = dict[str, Shape](), dict[str, str]()
    for name, shape in weights.shapes.items():
        found = _stored(name, shape, size, dtype) if name in layers else {name: cast(shape, dtype.name)}
        shapes |= found
        origins |= dict.fromkeys(found, name)

    def turn(name: str, tensor: Tensor) -> Pieces:
        if name not in layers:
            return {name: rounded(tensor, dtype, name, ref)}
        return _packed(name, tensor, size, dtype, scheme)

    bounds = dict.fromkeys(layers, Nearest(_TOP, size, dtype.name))
    return Form(dict(sorted(shapes.items())), origins, turn, _config(scheme), bounds=bounds)


def _stored(name: str, shape: Shape, size: int, dtype: Dtype) -> dict[str, Shape]:
    """What is stored of a layer."""
    stem, (rows, columns) = name.removesuffix("weight"), shape.shape
    words = -(-columns // _EACH_WORD)
    return {
        f"{stem}weight_packed": Shape("I32", (rows, words), rows * words * 4),
        f"{stem}weight_scale": cast(Shape("F32", (rows, columns // size), 0), dtype.name),
        f"{stem}weight_shape": Shape("I64", (2,), 16),
    }


def _packed(name: str, tensor: Tensor, size: int, dtype: Dtype, scheme: Any) -> Pieces:
    import torch
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    plain = tensor.to(torch.float32)
    groups = plain.reshape(plain.shape[0], -1, size)
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
    scale = scale.to(getattr(torch, dtype.name))  # as it is stored, so that rounding knows the scale that it will be read with
    made = PackedQuantizationCompressor.compress({"weight": plain, "weight_scale": scale.float()}, scheme)
    stem = name.removesuffix("weight")
    return {f"{stem}{key}": (scale if key == "weight_scale" else value).contiguous() for key, value in made.items()}


def _config(scheme: Any) -> dict[str, Any]:
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    told = QuantizationConfig(
        config_groups={"group_0": scheme},
        quant_method="compressed-tensors",
        format="pack-quantized",
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=["lm_head"],
    )
    return dict(told.model_dump(mode="json"))
