"""What stays of a model: of its layers, and of each layer's neurons or heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_llm.surgery.pruning.amount import Amount
from mlops_llm.surgery.pruning.layout import AXES, Layout, Unit, layer_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """The units that stay, by their old numbers."""

    layout: Layout
    unit: Unit
    kept: Mapping[int, tuple[int, ...]]
    """Old number of each layer that stays -> the neurons or groups in it that stay; empty where layers go."""

    def name(self, old: str) -> str | None:
        """A tensor's new name; None where it goes with its layer."""
        place = layer_of(old)
        if place is None:
            return old
        if place[0] not in self.kept:
            return None
        return f"model.layers.{list(self.kept).index(place[0])}.{place[1]}"

    def places(self, old: str) -> tuple[int, list[int]] | None:
        """The axis of a tensor along which it is cut, and what stays along it; None where it stays whole."""
        layer, part = layer_of(old) or (0, "")
        unit, axis = AXES.get(part, (Unit.layer, 0))
        if unit is not self.unit or unit is Unit.layer:
            return None
        if unit is Unit.neuron:
            return axis, list(self.kept[layer])
        query = part.split(".")[1] in ("q_proj", "o_proj")
        size = self.layout.head * (self.layout.heads // self.layout.groups if query else 1)
        return axis, [place for group in self.kept[layer] for place in range(group * size, (group + 1) * size)]

    def shape(self, old: str, shape: Sequence[int]) -> tuple[int, ...]:
        """A tensor's shape after the cut."""
        found = self.places(old)
        return tuple(len(found[1]) if found and axis == found[0] else size for axis, size in enumerate(shape))

    def tensor(self, old: str, tensor: Tensor) -> Tensor:
        """What stays of a tensor."""
        import torch

        found = self.places(old)
        return tensor.index_select(found[0], torch.tensor(found[1])).contiguous() if found else tensor

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """config.json of what stays."""
        made = copy.deepcopy(dict(config))
        if self.unit is Unit.neuron:
            made["intermediate_size"] = len(next(iter(self.kept.values())))
        elif self.unit is Unit.group:
            groups = len(next(iter(self.kept.values())))
            made["head_dim"] = self.layout.head  # else it would be told from the number of heads, which is another now
            made["num_key_value_heads"] = groups
            made["num_attention_heads"] = groups * (self.layout.heads // self.layout.groups)
        else:
            made["num_hidden_layers"] = len(self.kept)
            if config.get("layer_types"):
                made["layer_types"] = [config["layer_types"][layer] for layer in self.kept]
            if config.get("max_window_layers") is not None:
                made["max_window_layers"] = sum(layer < config["max_window_layers"] for layer in self.kept)
        return made

    def told(self) -> dict[str, Any]:
        """What stays, as JSON: old number of a layer -> numbers of its neurons or groups; see `told`."""
        return {"unit": self.unit.name, "kept": {str(layer): list(units) for layer, units in self.kept.items()}}


def without_layers(layout: Layout, gone: Sequence[int]) -> Cut:
    """A cut of whole layers."""
    return Cut(layout, Unit.layer, {layer: () for layer in range(layout.layers) if layer not in gone})


def best(layout: Layout, unit: Unit, scores: Sequence[Tensor], kept: int) -> Cut:
    """A cut that keeps the units of the highest scores, equally many in each layer, in their old order.

    Args:
        layout: the model's.
        unit: neuron or group.
        scores: of each layer, one a unit.
        kept: units of each layer that stay.
    """
    chosen = {
        layer: tuple(sorted(values.sort(descending=True, stable=True).indices[:kept].tolist()))
        for layer, values in enumerate(scores)
    }
    return Cut(layout, unit, chosen)


def first(layout: Layout, amount: Amount) -> Cut:
    """A cut of an amount that keeps the first units: all cuts of the amount have its size."""
    if amount.unit is Unit.layer:
        return without_layers(layout, range(amount.kept, amount.units))
    return Cut(layout, amount.unit, dict.fromkeys(range(layout.layers), tuple(range(amount.kept))))


def told(layout: Layout, unit: Unit, found: Mapping[str, Any]) -> Cut:
    """The cut that `Cut.told` wrote down."""
    return Cut(layout, unit, {int(layer): tuple(units) for layer, units in found["kept"].items()})
