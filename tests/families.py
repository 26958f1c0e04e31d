"""Random models of the families that surgery knows, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def miniature(family: str, folder: Path, *, layers: int = 2, tokenizer: Any = None, seed: int = 0, **changes: Any) -> Any:
    """A random model of hidden size 32 in `folder`: 4 heads of 8 on 2 key/value heads, 48 neurons a layer, tied weights.

    Args:
        family: one of `FAMILIES`.
        folder: where it is saved.
        layers: how many.
        tokenizer: saved beside it; its vocabulary is the model's.
        seed: of the weights.
        changes: other settings of the config.
    """
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family]
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) if tokenizer else 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id if tokenizer else 2,
        "pad_token_id": tokenizer.pad_token_id if tokenizer else 0,
    }
    settings |= {"head_dim": 8} if family != "qwen2" else {}
    settings |= {"sliding_window": None} if family == "mistral" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{name}Config")(**{**settings, **changes})
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        for each in model.parameters():  # biases and norms begin as constants, which would hide that they are cut wrongly
            each.data += 0.1 * torch.randn_like(each)
        model = model.eval()
    model.save_pretrained(folder)
    if tokenizer:
        tokenizer.save_pretrained(folder)
    return model
