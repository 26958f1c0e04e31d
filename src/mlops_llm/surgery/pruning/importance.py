"""How much a model leans on each neuron, head or layer.

Over calibration rows, by forward hooks: no gradient is needed, and memory is the model and one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlops_llm import console

if TYPE_CHECKING:
    from torch import Tensor


def by_activation(activation: Tensor, projection: Tensor) -> Tensor:
    """Mean |activation| of each input of a projection times the Euclidean norm of its column.

    It bounds what the input adds to the residual stream on average (the criterion of Wanda, Sun et al. 2023, arXiv:2306.11695,
    for whole columns).

    Args:
        activation: mean absolute value of each input, shape (inputs,).
        projection: weight, shape (outputs, inputs).
    """
    return activation * projection.float().norm(dim=0)


def by_magnitude(gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Product of the Euclidean norms of a neuron's three weights; shape (neurons,).

    Args:
        gate: shape (neurons, hidden).
        up: shape (neurons, hidden).
        down: shape (hidden, neurons).
    """
    return gate.float().norm(dim=1) * up.float().norm(dim=1) * down.float().norm(dim=0)


def block_influence(before: Tensor, after: Tensor) -> Tensor:
    """1 - cosine of a layer's input and output, of each token (ShortGPT, Men et al. 2024, arXiv:2403.03853, equation 1).

    Args:
        before: hidden states, shape (..., hidden).
        after: of the same shape.
    """
    import torch

    return 1 - torch.cosine_similarity(before.double(), after.double(), dim=-1)


def neurons(model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Importance of each layer's neurons by activation; shape (neurons,) each."""
    return _columns(model, rows, lambda layer: layer.mlp.down_proj)


def neurons_by_magnitude(model: Any) -> list[Tensor]:
    """Importance of each layer's neurons by their weights alone; shape (neurons,) each."""
    parts = [layer.mlp for layer in model.model.layers]
    weights = [[each.weight.detach().cpu() for each in (part.gate_proj, part.up_proj, part.down_proj)] for part in parts]
    return [by_magnitude(*each) for each in weights]


def groups(model: Any, rows: Sequence[Sequence[int]], count: int) -> list[Tensor]:
    """Importance of each layer's key/value groups by activation: the sum over the outputs of a group's query heads.

    Args:
        model: a causal language model.
        rows: token ids.
        count: groups of a layer.
    """
    return [values.reshape(count, -1).sum(1) for values in _columns(model, rows, lambda layer: layer.self_attn.o_proj)]


def layers(model: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Block influence of each layer, the mean over all tokens."""
    import torch

    there = model.model.layers
    sums, tokens = torch.zeros(len(there), dtype=torch.float64), 0

    def note(number: int) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, given: Any, output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output
            sums[number] += block_influence(given[0], after).sum().cpu()

        return hook

    with _hooks(each.register_forward_hook(note(number)) for number, each in enumerate(there)):
        tokens = _forward(model, rows)
    return [float(value) / tokens for value in sums]


def _columns(model: Any, rows: Sequence[Sequence[int]], projection: Callable[[Any], Any]) -> list[Tensor]:
    """Importance of the inputs of one projection of each layer."""
    import torch

    modules = [projection(layer) for layer in model.model.layers]
    sums = [torch.zeros(each.in_features, dtype=torch.float64) for each in modules]

    def note(number: int) -> Callable[[Any, Any], None]:
        def hook(module: Any, given: Any) -> None:
            sums[number] += given[0].double().abs().reshape(-1, module.in_features).sum(0).cpu()

        return hook

    with _hooks(each.register_forward_pre_hook(note(number)) for number, each in enumerate(modules)):
        tokens = _forward(model, rows)
    return [
        by_activation((total / tokens).float(), each.weight.detach().cpu()) for total, each in zip(sums, modules, strict=True)
    ]


@contextmanager
def _hooks(handles: Iterator[Any]) -> Iterator[None]:
    held = list(handles)
    try:
        yield
    finally:
        for each in held:
            each.remove()


def _forward(model: Any, rows: Sequence[Sequence[int]]) -> int:
    """Let the layers see all rows, one after the other; return the number of tokens."""
    import torch

    device, progress = next(model.parameters()).device, console.Progress("calibration rows", len(rows))
    with torch.no_grad():
        for number, row in enumerate(rows, 1):
            model.model(input_ids=torch.tensor([list(row)], device=device), use_cache=False)
            progress.at(number)
    progress.close()
    return sum(map(len, rows))
