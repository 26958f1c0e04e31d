"""Weights in AutoGPTQ's form, unpacked by plain arithmetic: transformers itself needs gptqmodel to open them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm.errors import UserError
from mlops_llm.models.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

PACKED = ("qweight", "qzeros", "scales", "g_idx")
"""Ends of the names of a layer's tensors."""


def whole(folder: Path, config: Mapping[str, Any], dtype: Any) -> Any:
    """A model with its layers unpacked, as transformers has it.

    Args:
        folder: of the model.
        config: its config.json.
        dtype: torch's, of the arithmetic.

    Raises:
        UserError: tensors are missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    told = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    del told.quantization_config
    model = AutoModelForCausalLM.from_config(told, dtype=dtype, trust_remote_code=False)
    with Tensors(folder) as tensors:
        modules = [name.removesuffix(".qweight") for name in tensors.names if name.endswith(".qweight")]
        state = {name: tensors.read(name) for name in tensors.names if name.rpartition(".")[2] not in PACKED}
        for each in modules:
            parts = {part: tensors.read(f"{each}.{part}") for part in PACKED}
            state[f"{each}.weight"] = weight(parts, config["quantization_config"])
    missing = [name for name in model.load_state_dict(state, strict=False).missing_keys if name != "lm_head.weight"]
    if missing or (not told.tie_word_embeddings and "lm_head.weight" not in state):
        raise UserError(f"{len(missing) or 1} tensors are missing, first {[*missing, 'lm_head.weight'][0]}", str(folder))
    model.tie_weights()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def weight(parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
    """The matrix of a layer in float32.

    Args:
        parts: `qweight`, columns in words along the first side, the first one in the lowest bits; `qzeros`, rows in words along
            the second; `scales` (groups, rows); `g_idx`, the group of each column.
        settings: `bits`, `sym`, and `format`: in all but `gptq_v2` the stored zeros are one too small.

    Returns:
        (rows, columns).
    """
    import torch

    bits = int(settings["bits"])
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    mask = 2**bits - 1
    words = parts["qweight"]
    numbers = ((words[:, None, :] >> shifts[None, :, None]) & mask).reshape(-1, words.shape[1])
    zeros = ((parts["qzeros"][:, :, None] >> shifts[None, None, :]) & mask).reshape(len(parts["qzeros"]), -1)
    if settings.get("sym", True):
        zeros = torch.full_like(zeros, 2 ** (bits - 1))
    elif settings.get("format") != "gptq_v2":
        zeros = zeros + 1
    group = parts["g_idx"].long()
    scales = parts["scales"].float()
    return ((numbers - zeros[group, : words.shape[1]]) * scales[group]).T.contiguous()
