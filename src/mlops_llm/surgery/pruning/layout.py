"""How the tensors of a model are called and shaped, as far as pruning must know."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.models.tensors import Shape

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose layers are known here: gated feed-forward, grouped-query attention."""
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


class Unit(Enum):
    """What is left out of a model."""

    neuron = "neuron"
    layer = "layer"
    group = "group"
    """A key/value head with the query heads that look at it."""


AXES: Mapping[str, tuple[Unit, int]] = {
    "mlp.gate_proj.weight": (Unit.neuron, 0),
    "mlp.gate_proj.bias": (Unit.neuron, 0),
    "mlp.up_proj.weight": (Unit.neuron, 0),
    "mlp.up_proj.bias": (Unit.neuron, 0),
    "mlp.down_proj.weight": (Unit.neuron, 1),
    "self_attn.q_proj.weight": (Unit.group, 0),
    "self_attn.q_proj.bias": (Unit.group, 0),
    "self_attn.k_proj.weight": (Unit.group, 0),
    "self_attn.k_proj.bias": (Unit.group, 0),
    "self_attn.v_proj.weight": (Unit.group, 0),
    "self_attn.v_proj.bias": (Unit.group, 0),
    "self_attn.o_proj.weight": (Unit.group, 1),
}
"""Tensor of a layer -> the unit that it is made of, and along which of its axes."""
_WHOLE = {
    "mlp.down_proj.bias",
    "self_attn.o_proj.bias",
    "self_attn.q_norm.weight",
    "self_attn.k_norm.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
}
"""Tensors of a layer that hold no single neuron or head."""


@dataclass(frozen=True)
class Layout:
    """The sizes of a model."""

    family: str
    layers: int
    width: int
    """Neurons of a layer's feed-forward part."""
    heads: int
    groups: int
    """Key/value heads; each is looked at by heads / groups query heads."""
    head: int
    """Numbers of a head."""
    hidden: int
    """Numbers of a hidden state."""
    parameters: int
    """Numbers of the whole model; a tied output head counts once."""
    of_layer: Mapping[Unit, int]
    """Numbers of one layer that belong to its neurons, to its groups, or (layer) all of them."""

    def units(self, unit: Unit) -> int:
        """How many there are, of neurons and groups in each layer."""
        return {Unit.neuron: self.width, Unit.group: self.groups, Unit.layer: self.layers}[unit]

    def parameters_of(self, unit: Unit) -> int:
        """Numbers of one layer, or of one neuron or group in every layer."""
        of_layer = self.of_layer[unit]
        return of_layer if unit is Unit.layer else of_layer // self.units(unit) * self.layers


def layer_of(name: str) -> tuple[int, str] | None:
    """The layer that a tensor is in and its name within it; None of one outside the layers."""
    found = _LAYER.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def layout(config: Mapping[str, Any], shapes: Mapping[str, Shape], ref: str) -> Layout:
    """The sizes of a model; no weight is read.

    Args:
        config: its config.json.
        shapes: of its tensors, without an output head that is tied to the embeddings.
        ref: what the model is called.

    Raises:
        UserError: the family is none whose layers are known here, or a layer holds a tensor that such a layer does not have.
    """
    family = str(config.get("model_type") or "unknown")
    if family not in FAMILIES:
        what = f"the layers of the family '{family}' are not known here, so no unit of theirs can be left out"
        raise UserError(what, ref, f"take a model of one of: {', '.join(FAMILIES)}")
    heads = int(config["num_attention_heads"])
    found = Layout(
        family=family,
        layers=int(config["num_hidden_layers"]),
        width=int(config["intermediate_size"]),
        heads=heads,
        groups=int(config.get("num_key_value_heads") or heads),
        head=int(config.get("head_dim") or config["hidden_size"] // heads),
        hidden=int(config["hidden_size"]),
        parameters=sum(math.prod(each.shape) for each in shapes.values()),
        of_layer=_of_layer(shapes, ref),
    )
    _check_shapes(found, shapes, ref)
    return found


def _of_layer(shapes: Mapping[str, Shape], ref: str) -> dict[Unit, int]:
    """Numbers of the first layer, by the unit that they belong to."""
    found = dict.fromkeys(Unit, 0)
    for name, each in shapes.items():
        place = layer_of(name)
        if place is None:
            continue
        if place[1] not in AXES and place[1] not in _WHOLE:
            remedy = f"take a plain model of one of: {', '.join(FAMILIES)}"
            raise UserError(f"holds the tensor {name}, which no known layer has", ref, remedy)
        if place[0] == 0:
            found[Unit.layer] += math.prod(each.shape)
            if place[1] in AXES:
                found[AXES[place[1]][0]] += math.prod(each.shape)
    return found


def _check_shapes(found: Layout, shapes: Mapping[str, Shape], ref: str) -> None:
    """See that every layer has what the config says.

    Raises:
        UserError: a tensor is missing or of another shape; it is named.
    """
    wide = {"q_proj": found.heads * found.head, "o_proj": found.heads * found.head}
    for number in range(found.layers):
        for part, (unit, axis) in AXES.items():
            name = f"model.layers.{number}.{part}"
            if name not in shapes:
                if part.endswith("weight"):
                    raise UserError(f"the tensor {name} is missing", ref, "copy the weights again")
                continue
            projection = part.split(".")[1]
            wanted = found.width if unit is Unit.neuron else wide.get(projection, found.groups * found.head)
            if shapes[name].shape[axis] != wanted:
                what = f"the tensor {name} has the shape {list(shapes[name].shape)}, and config.json says {wanted}"
                raise UserError(what, ref, "copy config.json and the weights again")
