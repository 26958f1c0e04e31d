"""A Hugging Face folder as one GGUF file, the form that llama.cpp, Ollama and LM Studio read; tensor by tensor.

Of the families Qwen2, Qwen3, Llama (SmolLM2 too) and Mistral. What errors silently here, garbage out of an engine that says
nothing: llama.cpp turns pairs of neighbours where transformers turns halves, so in the Llama family rows of q and k are put in
another order (RoPE; Su et al. 2021, arXiv:2104.09864); the rule that splits text before merges has a name; a tied head is left
out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.errors import RequestError, UserError, need
from mlops_llm.files import intended
from mlops_llm.models import packed
from mlops_llm.models.load import Task, tokenizer_of
from mlops_llm.models.tensors import Shape, by_layer
from mlops_llm.surgery.forms import LARGEST_F16
from mlops_llm.surgery.gguf_header import describe, frequencies, rope, words
from mlops_llm.surgery.gguf_tokens import Vocabulary, vocabulary
from mlops_llm.surgery.planning import Check
from mlops_llm.surgery.rounding import Bound, Nearest, Same, compared
from mlops_llm.surgery.weights import HEAD, Weights, finite, opened

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from mlops_llm.models.load import Files, ModelLoad

FILE = "model.gguf"
"""The file in a checkpoint's folder."""
FAMILIES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama"}
"""`model_type` of a config -> llama.cpp's architecture."""
_EMBEDDING = "model.embed_tokens.weight"
_BLOCK = 32
"""Numbers that share a scale in q8_0."""
_TOP = 127.0
"""Steps of q8_0 from zero to the largest of a block."""


class Type(Enum):
    """Number format of the matrices in a GGUF; norms and biases are always float32."""

    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"
    """8 bits, and a float16 scale for each 32 numbers of a row."""


@dataclass(frozen=True)
class Layout:
    """What a GGUF will hold, known before a weight is read."""

    ref: str
    weights: Weights
    type: Type
    architecture: str
    names: Mapping[str, str]
    """Tensor of the model -> tensor in the GGUF; what is left out is not there."""
    kinds: Mapping[str, str]
    """Tensor of the model -> `F32`, `F16` or `Q8_0`."""
    vocabulary: Vocabulary

    @property
    def bytes(self) -> int:
        """Of all tensors as they will be written."""
        return sum(_size(self.weights.shapes[name], kind) for name, kind in self.kinds.items())

    @property
    def fallen(self) -> int:
        """Matrices that stay in float16 because their rows do not divide into blocks of q8_0."""
        return sum(kind == "F16" for kind in self.kinds.values()) if self.type is Type.q8_0 else 0


def layout(files: Files, how: ModelLoad, type: Type) -> Layout:
    """See that a model can be written, without reading its weights; an adapter is merged into its base on the way.

    Raises:
        UserError: its family is not known here, it is a reward model or quantized, or something of it has no counterpart in
            llama.cpp.
    """
    need("gguf", "surgery")
    ref, architecture = files.place.ref, _architecture(files)
    weights = opened(files, how)
    count = int(weights.config["num_hidden_layers"])
    shapes = {name: each for name, each in weights.shapes.items() if not name.endswith("rotary_emb.inv_freq")}
    names = {name: _name(name, architecture, count, ref) for name in shapes}
    kinds = {name: _kind(each, type) for name, each in shapes.items()}
    wanted = [_EMBEDDING] if weights.config.get("tie_word_embeddings") else [_EMBEDDING, HEAD]
    if missing := [name for name in wanted if name not in shapes]:
        raise UserError(f"holds no {missing[0]}", ref, "copy the weights again")
    known = vocabulary(tokenizer_of(files), shapes[_EMBEDDING].shape[0], ref)
    return Layout(ref, weights, type, architecture, names, kinds, known)


def _architecture(files: Files) -> str:
    """llama.cpp's name of a model's architecture.

    Raises:
        UserError: it has none that is written here.
    """
    ref, config = files.place.ref, files.config
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        named = "Qwen2, Qwen3, Llama (SmolLM2 too), Mistral"
        raise UserError(f"is of the family '{family}', of which no GGUF is written here", ref, f"take one of: {named}")
    if files.task is not Task.language:
        raise UserError("is a reward model, whose head GGUF does not hold", ref, "take a language model")
    packed.refuse(files)
    if config.get("use_sliding_window"):
        raise UserError("attends to a sliding window, which llama.cpp has not for this family", ref, "take another model")
    told = rope(config)
    if told["rope_type"] not in ("default", "linear", "llama3"):
        raise UserError(f"scales positions by '{told['rope_type']}', which is not written here", ref, "take another model")
    if (
        told.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0
        or config.get("hidden_act", "silu") != "silu"
    ):
        raise UserError("has an activation or a rotation that llama.cpp has not for this family", ref, "take another model")
    return FAMILIES[family]


def _name(name: str, architecture: str, layers: int, ref: str) -> str:
    import gguf

    found = gguf.get_tensor_name_map(_arch(architecture), layers).get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UserError(f"holds {name}, which llama.cpp has not in this family", ref, "take another model")
    return str(found)


def _arch(architecture: str) -> Any:
    import gguf

    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)


def _kind(shape: Shape, type: Type) -> str:
    if len(shape.shape) < 2 or type is Type.f32:
        return "F32"
    return "Q8_0" if type is Type.q8_0 and shape.shape[-1] % _BLOCK == 0 else "F16"


def _size(shape: Shape, kind: str) -> int:
    count = math.prod(shape.shape)
    return count // _BLOCK * (_BLOCK + 2) if kind == "Q8_0" else count * (4 if kind == "F32" else 2)


def write(plan: Layout, path: Path) -> None:
    """Write a GGUF; one tensor at a time is in memory.

    Args:
        plan: from `layout`.
        path: the file.

    Raises:
        UserError: a number is not finite, or too large for float16; the tensor is named.
    """
    import gguf

    writer = gguf.GGUFWriter(path, plan.architecture, use_temp_file=False)
    describe(writer, plan.weights.config, plan.architecture, {Type.f32: 0, Type.f16: 1, Type.q8_0: 7}[plan.type])
    words(writer, plan.vocabulary)
    extra = frequencies(plan.weights.config)
    for each, kind in plan.kinds.items():
        held, stored = plan.weights.shapes[each], getattr(gguf.GGMLQuantizationType, kind)
        # The writer takes what is quantized by its bytes, and tells the numbers from them.
        shape = gguf.quant_shape_to_byte_shape(held.shape, stored) if kind == "Q8_0" else held.shape
        form = {"F32": "float32", "F16": "float16", "Q8_0": "uint8"}[kind]
        writer.add_tensor_info(plan.names[each], shape, _numpy(form), _size(held, kind), raw_dtype=stored)
    if extra is not None:
        writer.add_tensor_info("rope_freqs.weight", extra.shape, extra.dtype, extra.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    progress = console.Progress("writing", len(plan.kinds))
    for done, (each, layer) in enumerate(by_layer(list(plan.kinds)), 1):
        writer.write_tensor_data(_data(plan.weights.read(each), each, plan))
        progress.at(done, layer)
    if extra is not None:
        writer.write_tensor_data(extra)
    progress.close()
    writer.close()


def _numpy(name: str) -> Any:
    import numpy

    return numpy.dtype(name)


def _data(tensor: Tensor, name: str, plan: Layout) -> numpy.ndarray[Any, Any]:
    """A tensor's numbers as they are written.

    Raises:
        UserError: one is not finite, or too large for float16.
    """
    import gguf

    ref, kind = plan.ref, plan.kinds[name]
    if not finite(tensor):
        raise RequestError(f"tensor {name} holds NaN or infinity", ref, "take an earlier checkpoint")
    if kind == "F16" and float(tensor.abs().max()) > LARGEST_F16:
        raise UserError(f"tensor {name} holds {float(tensor.abs().max()):.6g}, too large for float16", ref, "op.type=f32")
    numbers: numpy.ndarray[Any, Any] = ordered(tensor, name, plan).numpy()
    return numbers if kind == "F32" else gguf.quantize(numbers, getattr(gguf.GGMLQuantizationType, kind))


def ordered(tensor: Tensor, name: str, plan: Layout) -> Tensor:
    """A tensor of the model in float32, its rows in llama.cpp's order."""
    import torch

    config, tensor = plan.weights.config, tensor.to(torch.float32)
    found = re.search(r"\.(q|k)_proj\.(weight|bias)$", name) if plan.architecture == "llama" else None
    if found is None:
        return tensor
    heads = int(config["num_attention_heads"])
    return neighbours(tensor, heads if found[1] == "q" else int(config.get("num_key_value_heads") or heads))


def neighbours(tensor: Tensor, heads: int) -> Tensor:
    """Rows of a q or k projection in the order of llama.cpp's Llama family: the two halves of each head take turns.

    Args:
        tensor: (heads * size, ...) with rows 0..size/2 and size/2..size of a head turned against each other.
        heads: how many there are.

    Returns:
        The same with rows 2i and 2i + 1 turned against each other.
    """
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def again(plan: Layout, path: Path) -> list[Check]:
    """Compare what lies in a finished file with the model, one tensor at a time.

    Raises:
        UserError: it is cut off or no GGUF file.
    """
    import gguf
    import torch

    packed.gguf_tensors(path)  # for its error
    held = {each.name: each for each in gguf.GGUFReader(path).tensors}

    def read(name: str) -> tuple[Tensor, Tensor]:
        stored = held.get(plan.names[name])
        if stored is None:
            raise UserError(f"{plan.names[name]} is missing", str(intended(path.parent) / path.name))
        numbers = gguf.dequantize(stored.data, stored.tensor_type) if plan.kinds[name] == "Q8_0" else stored.data.copy()
        return ordered(plan.weights.read(name), name, plan), torch.from_numpy(numbers)

    def bound(name: str) -> Bound:
        return Nearest(_TOP, _BLOCK, "float16") if plan.kinds[name] == "Q8_0" else Same()

    try:
        return [compared(plan.kinds, read, bound)]
    finally:
        plan.weights.close()
