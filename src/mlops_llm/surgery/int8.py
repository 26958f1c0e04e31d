"""Linear layers as 8-bit whole numbers with a scale for each row, as torchao stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_llm.models import packed
from mlops_llm.models.load import Dtype
from mlops_llm.models.tensors import Shape, coded
from mlops_llm.surgery.forms import Form, Pieces, rounded
from mlops_llm.surgery.rounding import Nearest
from mlops_llm.surgery.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

_TOP = 127.5
"""Whole numbers from zero to the largest of a row."""


def int8(weights: Weights, layers: Mapping[str, Shape], dtype: Dtype, ref: str, *, activations: bool) -> Form:
    """The form.

    Args:
        weights: the model's.
        layers: from `forms.linears`.
        dtype: number format of everything else, and of the scales.
        ref: the model, for a person.
        activations: the numbers that come in are brought to 8 bits too, token by token, while the model runs.
    """
    packed.quiet()
    import torch
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    kind = Int8DynamicActivationInt8WeightConfig if activations else Int8WeightOnlyConfig
    settings, format = kind(set_inductor_config=False), getattr(torch, dtype.name)

    def turned(name: str, tensor: Tensor) -> tuple[Pieces, Mapping[str, str]]:
        return _pieces(name, tensor.to(format), settings if name in layers else None)

    shapes, origins, metadata = dict[str, Shape](), dict[str, str](), dict[str, str]()
    for name, shape in weights.shapes.items():
        pieces, told = turned(name, torch.empty(shape.shape, dtype=format, device="meta"))
        metadata |= {key: value for key, value in told.items() if key != "tensor_names"}
        shapes |= {each: coded(one) for each, one in pieces.items()}
        origins |= dict.fromkeys(pieces, name)
    metadata["tensor_names"] = json.dumps(list(weights.shapes))
    return Form(
        dict(sorted(shapes.items())),
        origins,
        lambda name, tensor: turned(name, rounded(tensor, dtype, name, ref))[0],
        _config(settings),
        metadata,
        dict.fromkeys(layers, Nearest(_TOP, None, dtype.name)),
    )


def _pieces(name: str, tensor: Tensor, settings: Any | None) -> tuple[Pieces, Mapping[str, str]]:
    """What is stored of a tensor, and what the file says of it; without settings it stays as it is."""
    import torch
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import quantize_

    if settings is not None:
        holder = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
        holder[0].weight = torch.nn.Parameter(tensor, requires_grad=False)
        quantize_(holder, settings)
        tensor = holder[0].weight.data
    return flatten_tensor_state_dict({name: tensor})  # type: ignore[no-any-return]


def _config(settings: Any) -> dict[str, Any]:
    from torchao.core.config import config_to_dict

    return {
        "quant_method": "torchao",
        "quant_type": {"default": config_to_dict(settings)},
        "modules_to_not_convert": ["lm_head"],
        "include_input_output_embeddings": False,
        "untie_embedding_weights": False,
    }
