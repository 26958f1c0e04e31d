"""A model in another form: each tensor is read, turned and written before the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm.errors import RequestError, UserError
from mlops_llm.models import packed
from mlops_llm.models.load import Dtype, Files
from mlops_llm.models.tensors import Shape, ShardWriter, cast
from mlops_llm.surgery import companions
from mlops_llm.surgery.planning import Check
from mlops_llm.surgery.restored import Restored
from mlops_llm.surgery.rounding import Bound, Same, compared
from mlops_llm.surgery.streaming import watched
from mlops_llm.surgery.weights import Weights, finite

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_F16 = 65504.0
GROUPS = (128, 64, 32, 16)
"""Sizes of groups that are tried, the largest first, where none is named."""
Pieces = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Form:
    """What becomes of a model's tensors."""

    shapes: Mapping[str, Shape]
    """Of the result, sorted by name."""
    origins: Mapping[str, str]
    """Tensor of the result -> tensor of the model that it is made of."""
    turn: Callable[[str, Tensor], Pieces]
    """Makes of a tensor of the model those of the result that stem from it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """`quantization_config`, as transformers and vLLM read it; empty where the weights are plain."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What each safetensors file says besides."""
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    """What rounding may do to tensors of the model; the others stay what they are, but for their number format."""

    @property
    def bytes(self) -> int:
        """Of the result's tensors."""
        return sum(each.bytes for each in self.shapes.values())


def again(bounds: Mapping[str, Bound], weights: Weights, folder: Path) -> list[Check]:
    """Compare what lies in a finished folder with what it was made of, one tensor at a time.

    Args:
        bounds: see `Form.bounds`.
        weights: the model's.
        folder: where the result is.
    """
    restored = Restored(folder)
    try:
        return [
            compared(
                weights.shapes,
                lambda name: (weights.read(name), restored.read(name)),
                lambda name: bounds.get(name, Same()),
            )
        ]
    finally:
        restored.close()
        weights.close()


def write(form: Form, weights: Weights, files: Files, folder: Path, *, dtype: Dtype, most: int) -> str:
    """Fill an empty folder with a model in its new form; return the digest of the weights.

    Args:
        form: what becomes of the tensors.
        weights: the model's.
        files: whose tokenizer and settings are copied.
        folder: where it goes.
        dtype: number format of what is not quantized.
        most: bytes of a file.

    Raises:
        UserError: a tensor holds NaN or infinity, or numbers too large for the new form.
    """
    writer = ShardWriter(folder, form.shapes, most, metadata=form.metadata)
    waiting: dict[str, Tensor] = {}
    try:
        for name in watched(form.shapes, "quantizing" if form.config else "converting"):
            if name not in waiting:
                origin = form.origins[name]
                tensor = weights.read(origin)
                if not finite(tensor):
                    raise RequestError(f"tensor {origin} holds NaN or infinity", files.place.ref, "take an earlier checkpoint")
                waiting |= form.turn(origin, tensor)
            writer.write(name, waiting.pop(name))
        written = writer.close()
    finally:
        weights.close()
    companions.copy(files, folder)
    told = {"quantization_config": dict(form.config)} if form.config else {}
    companions.configure(weights.config, folder, dtype, **told)
    return written


def converted(weights: Weights, dtype: Dtype, ref: str) -> Form:
    """All numbers in another format.

    Args:
        weights: the model's.
        dtype: of the result.
        ref: the model, for a person.
    """
    shapes = {name: cast(each, dtype.name) for name, each in weights.shapes.items()}
    return Form(shapes, {name: name for name in shapes}, lambda name, tensor: {name: rounded(tensor, dtype, name, ref)})


def rounded(tensor: Tensor, dtype: Dtype, name: str, ref: str) -> Tensor:
    """A tensor in another number format; whole numbers stay.

    Raises:
        UserError: a number is too large for float16.
    """
    import torch

    if not tensor.is_floating_point():
        return tensor
    if dtype is Dtype.float16 and tensor.numel() and float(tensor.abs().max()) > LARGEST_F16:
        what = f"tensor {name} holds {float(tensor.abs().max()):.6g}, and float16 ends at {LARGEST_F16:.0f}"
        raise UserError(what, ref, "take bfloat16: op=quantize_bf16")
    return tensor.to(getattr(torch, dtype.name))


def linears(files: Files, weights: Weights) -> dict[str, Shape]:
    """The matrices that quantization is about: those of all linear layers but the output head. Embeddings are none.

    Raises:
        UserError: the model keeps them in another layout, as mixtures of experts do.
    """
    packed.quiet()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = bool(files.code)
    config = AutoConfig.from_pretrained(files.whole.place.folder, trust_remote_code=trust)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    head = model.get_output_embeddings()
    names = [name for name, each in model.named_modules() if isinstance(each, torch.nn.Linear) and each is not head]
    missing = next((name for name in names if f"{name}.weight" not in weights.shapes), None)
    if missing or not names:
        what = f"keeps {missing}.weight in another layout" if missing else "has no linear layer"
        raise UserError(what, files.place.ref, "quantize a model of Qwen2, Qwen3, Llama or Mistral")
    return {f"{name}.weight": weights.shapes[f"{name}.weight"] for name in names}


def group_size(layers: Mapping[str, Shape], wanted: int | None) -> int:
    """How many numbers of a row share a scale: what is wanted, else the largest of 128, 64, 32, 16 that divides every row.

    Raises:
        UserError: rows do not divide; the first such layer, its columns and the nearest sizes that fit all are named.
    """
    columns = {name.removesuffix(".weight"): each.shape[-1] for name, each in layers.items()}
    common = gcd(*columns.values())
    tried = GROUPS if wanted is None else (wanted,)
    found = next((size for size in tried if common % size == 0), None)
    if found:
        return found
    size = tried[-1]
    name = next(name for name, count in columns.items() if count % size)
    fitting = [each for each in range(2, common + 1) if common % each == 0]
    near = sorted({*[each for each in fitting if each < size][-1:], *[each for each in fitting if each > size][:1]})
    remedy = f"op.group_size={' or '.join(map(str, near))} divides every layer" if near else "take op=quantize_int8"
    raise UserError(f"{name} has {columns[name]} columns, which do not divide into groups of {size}", "op.group_size", remedy)
