from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.models import tiny
from mlops_llm.models.tiny.build import build


def fingerprint(folder: Path) -> str:
    from safetensors.numpy import load_file

    total = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        total.update(name.encode() + str(tensor.shape).encode() + tensor.tobytes())
    return total.hexdigest()


def test_a_rebuild_gives_the_same_weights(tmp_path: Path) -> None:
    import torch

    threads = torch.get_num_threads()
    first, again = build(tmp_path / "first", steps=8), build(tmp_path / "again", steps=8)
    other = build(tmp_path / "other", seed=1, steps=8)
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert (first / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "first", "other"]


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists"):
        build(tmp_path, steps=1)


def test_the_shipped_model_loads_and_speaks_chatml() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.folder())
    model = AutoModelForCausalLM.from_pretrained(tiny.folder())
    assert tokenizer.eos_token_id == model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.pad_token == "<|endoftext|>"
    question = [{"role": "user", "content": "3 加 5 等于几?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\n3 加 5 等于几?<|im_end|>\n<|im_start|>assistant\n"
    given = tokenizer(text, return_tensors="pt")
    answer = model.generate(**given, max_new_tokens=16, do_sample=False)[0, given["input_ids"].shape[1] :]
    assert "8" in tokenizer.decode(answer, skip_special_tokens=True)
