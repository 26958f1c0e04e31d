"""A whole model that answers as its pruned form must: what goes is there, and counts for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlops_llm.surgery.pruning.layout import Unit

if TYPE_CHECKING:
    from mlops_llm.surgery.pruning.cut import Cut


@contextmanager
def masked(model: Any, cut: Cut) -> Iterator[Any]:
    """Within the block the model computes without the units that a cut leaves out; its weights do not change.

    Neurons and heads are set to zero where their output projection reads them; a layer that goes passes its input on.
    """
    handles = [_hook(layer, number, cut) for number, layer in enumerate(model.model.layers) if _is_cut(number, cut)]
    try:
        yield model
    finally:
        for each in handles:
            each.remove()


def _is_cut(number: int, cut: Cut) -> bool:
    return cut.unit is not Unit.layer or number not in cut.kept


def _hook(layer: Any, number: int, cut: Cut) -> Any:
    import torch

    if cut.unit is Unit.layer:
        return layer.register_forward_hook(
            lambda module, given, output: (given[0], *output[1:]) if isinstance(output, tuple) else given[0]
        )
    neurons = cut.unit is Unit.neuron
    projection, part = (layer.mlp.down_proj, "mlp.down_proj") if neurons else (layer.self_attn.o_proj, "self_attn.o_proj")
    found = cut.places(f"model.layers.{number}.{part}.weight")
    assert found is not None
    mask = torch.zeros(projection.in_features, dtype=projection.weight.dtype, device=projection.weight.device)
    mask[found[1]] = 1
    return projection.register_forward_pre_hook(lambda module, given: (given[0] * mask, *given[1:]))
