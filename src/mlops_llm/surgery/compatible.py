"""Whether models can be merged: the same architecture, tensor by tensor, and settings that mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.planning import Source
from mlops_llm.surgery.weights import EMBEDDING, HEAD, Weights

_DECISIVE = ("model_type", "hidden_act", "num_attention_heads", "num_key_value_heads", "head_dim", "tie_word_embeddings")
"""Settings without which tensors of the same shapes mean something else."""
_PASSING = (
    "_name_or_path",
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_position_embeddings",
)
Found = Mapping[str, Shape]


def agree(sources: Sequence[Source], weights: Sequence[Weights], *, rows_differ: bool = False) -> list[str]:
    """See that all can be merged with the first.

    Args:
        sources: the models.
        weights: of each.
        rows_differ: the embeddings may have another number of rows, because vocabularies are brought together.

    Returns:
        What a person should know: settings in which they differ.

    Raises:
        UserError: they cannot; the first differing setting or tensor is named.
    """
    told = list[str]()
    for other, of_other in zip(sources[1:], weights[1:], strict=True):
        told += _settings(sources[0], weights[0].config, other, of_other.config)
        _tensors(sources[0], weights[0].shapes, other, of_other.shapes, rows_differ)
    return list(dict.fromkeys(told))


def _settings(first: Source, config: dict[str, Any], other: Source, of_other: dict[str, Any]) -> list[str]:
    told = []
    for name in [*_DECISIVE, *sorted({*config, *of_other} - {*_PASSING, *_DECISIVE})]:
        here, there = config.get(name), of_other.get(name)
        if here == there:
            continue
        if name in _DECISIVE and (here is not None or there is not None):
            what = f"architectures differ: {name} is {here} in {first.ref} and {there} in {other.ref}"
            raise UserError(what, "models", "merge models that were trained from one base")
        if name in config and name in of_other and (name.startswith("rope") or not isinstance(here, dict | list)):
            told.append(f"{name} is {here} in {first.ref} and {there} in {other.ref}: the result has that of {first.ref}")
    return told


def _tensors(first: Source, here: Found, other: Source, there: Found, rows_differ: bool) -> None:
    remedy = "merge models that were trained from one base"
    for name in sorted({*here, *there}):
        one, two = here.get(name), there.get(name)
        if one is None or two is None:
            has, lacks = (first, other) if one else (other, first)
            shape = (one or two).shape  # type: ignore[union-attr]
            raise UserError(f"layers differ: {has.ref} has it {shape}, {lacks.ref} has not", name, remedy)
        if one.shape == two.shape or (rows_differ and is_of_vocabulary(name) and one.shape[1:] == two.shape[1:]):
            continue
        raise UserError(f"layers differ: it is {one.shape} in {first.ref} and {two.shape} in {other.ref}", name, remedy)


def is_of_vocabulary(name: str) -> bool:
    """Whether a tensor has a row for each token."""
    return name == HEAD or bool(EMBEDDING.search(name))
