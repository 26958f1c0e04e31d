"""Qwen2 written as Llama, which is the same model: engines read the size of Qwen2's heads from their number alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_llm.errors import UserError

_OWN = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
_QUERY, _OUTPUT = "self_attn.q_proj.bias", "self_attn.o_proj.bias"


def needed(family: str) -> bool:
    """Whether a model with another number of heads has to be written so."""
    return family == "qwen2"


def check(config: Mapping[str, Any], ref: str) -> None:
    """See that Llama has all that the model has.

    Raises:
        UserError: its attention slides, which Llama's does not.
    """
    if config.get("use_sliding_window"):
        what = "has sliding-window attention, and with fewer heads it would have to be written as Llama, which has none"
        raise UserError(what, ref, "take op=prune_ffn or op=prune_depth")


def config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A Qwen2's config as Llama's, whose attention has biases."""
    kept = {name: value for name, value in config.items() if name not in _OWN}
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": True, "mlp_bias": False}
    return kept | llama


def output_bias(name: str) -> str | None:
    """The tensor that Llama has beside Qwen2's bias of the query: a bias of the output, of zeros; None beside another."""
    return name.removesuffix(_QUERY) + _OUTPUT if name.endswith(_QUERY) else None
