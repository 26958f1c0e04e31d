"""Quantize a folder with llm-compressor or optimum, in an environment of its own: `python oneshot.py REQUEST.json`.

Nothing of this project is imported here, so that the environment needs nothing but the method's packages. Their releases and
those beside vLLM exclude each other (compressed-tensors).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(request: dict[str, Any]) -> None:
    """Load `source`, quantize it on `rows`, and save it to `output`."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, request["dtype"])
    model = AutoModelForCausalLM.from_pretrained(request["source"], dtype=dtype, trust_remote_code=False)
    {"llmcompressor": _llmcompressor, "optimum": _optimum}[request["library"]](model, request)


def _llmcompressor(model: Any, request: dict[str, Any]) -> None:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    from datasets import Dataset

    size = request["group_size"]
    strategy = {"strategy": "group", "group_size": size} if size else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=request["bits"], type="int", symmetric=True, **strategy)
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in request["rows"]]
    oneshot(
        model=model,
        dataset=Dataset.from_list(rows),
        recipe=GPTQModifier(config_groups=groups, ignore=["lm_head"]),
        max_seq_length=max(map(len, request["rows"])),
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(request["output"], save_compressed=True)
    (Path(request["output"]) / "recipe.yaml").unlink(missing_ok=True)


def _optimum(model: Any, request: dict[str, Any]) -> None:
    import torch
    from optimum.gptq import GPTQQuantizer

    rows = [torch.tensor([ids]) for ids in request["rows"]]
    quantizer = GPTQQuantizer(
        bits=request["bits"],
        dataset=[{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in rows],
        block_name_to_quantize="model.layers",
        group_size=request["group_size"],
        model_seqlen=max(map(len, request["rows"])),
        pad_token_id=request["pad"],
    )
    made = quantizer.quantize_model(model, None)
    # The rows would be written into config.json.
    told = made.config.quantization_config
    if isinstance(told, dict):
        told["dataset"] = None
    else:
        told.dataset = None
    made.save_pretrained(request["output"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
