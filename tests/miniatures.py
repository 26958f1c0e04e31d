"""Whole models of two layers, made in a moment: random weights, tiny's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mlops_llm.models import tiny

BESIDE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def config(family: str, **other: Any) -> Any:
    """A small config of `qwen2` or `llama`."""
    from transformers import LlamaConfig, Qwen2Config

    settings = {
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": family == "qwen2",
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    } | other
    return (Qwen2Config if family == "qwen2" else LlamaConfig)(**settings)


def model(folder: Path, family: str = "qwen2", seed: int = 0, dtype: str = "float32", shard: str = "5GB", **other: Any) -> Path:
    """Save a random model with a tokenizer; the seeds are far apart."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config(family, **other)).to(getattr(torch, dtype))
    made.save_pretrained(folder, max_shard_size=shard)
    for name in BESIDE:
        shutil.copyfile(tiny.folder() / name, folder / name)
    return folder


def adapter(folder: Path, base: Path, seed: int = 0, rank: int = 4, origin: bool = True, **other: Any) -> Path:
    """Save a random LoRA adapter on a model, with its origin as a training writes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from mlops_llm.models import load
    from mlops_llm.models.adapter import write_origin
    from mlops_llm.models.ref import resolve

    settings = {"r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | other
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
        for name, each in made.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(each, std=0.2)
    made.save_pretrained(folder)
    if origin:
        write_origin(folder, load.inspect(resolve(str(base)), load.ModelLoad()))
    return folder


def tensors(folder: Path) -> dict[str, Any]:
    """All tensors of a folder, read by safetensors itself."""
    from safetensors.torch import load_file

    return {name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()}
