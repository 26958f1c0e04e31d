"""Pruning from the request to the certified checkpoint, on random models of every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlops_llm import component
from mlops_llm.component import build
from mlops_llm.errors import UserError
from mlops_llm.models import digested, load
from mlops_llm.models.ref import resolve
from mlops_llm.record import MemoryRun, Result
from mlops_llm.surgery import execution
from mlops_llm.surgery.certificate import certify
from mlops_llm.surgery.config import Surgery
from tests.families import miniature

Models = Callable[[str], str]
TOKENIZER = load.tokenizer(resolve("tiny"))
SETTINGS: dict[str, dict[str, Any]] = {
    "prune_ffn": {"ratio": 0.25, "of": "unit", "samples": 4},
    "prune_heads": {"ratio": 0.5, "of": "unit", "samples": 4},
    "prune_depth": {"ratio": 0.3, "of": "unit", "samples": 4},
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose record is made once, and in which all models are."""
    return tmp_path_factory.mktemp("record")


@pytest.fixture
def here(record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and another record than any that a process may have."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{record}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    component.load("mlops_llm.surgery.ops")
    return tmp_path


@pytest.fixture
def model(record: Path) -> Models:
    """A function that gives a random model of a family."""

    def made(family: str) -> str:
        if not (record / family).exists():
            miniature(family, record / family, layers=3, tokenizer=TOKENIZER)
        return str(record / family)

    return made


def request(operation: str, ref: str, **settings: Any) -> Surgery:
    own = {key: settings.pop(key) for key in ("output", "seed", "shard_mb") if key in settings}
    op = build("op", operation, {**SETTINGS[operation], **settings})
    return Surgery(op=op, model=ref, **{"output": "pruned", **own})


def done(asked: Surgery) -> tuple[Result, MemoryRun]:
    run = MemoryRun()
    return asked.op.prepare(asked)(run), run


@pytest.mark.parametrize(
    ("family", "operation"),
    [("llama", "prune_ffn"), ("qwen2", "prune_heads"), ("qwen3", "prune_heads"), ("mistral", "prune_depth")],
)
def test_a_pruned_model_is_certified_and_loads_without_our_code(family: str, operation: str, here: Path, model: Models) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result, run = done(request(operation, model(family)))
    assert not result.failed and result.values["certificate.verdict"] == "passed"
    config = json.loads((here / "pruned/config.json").read_text())
    sizes = ("intermediate_size", "num_key_value_heads", "num_attention_heads", "num_hidden_layers")
    wanted = {"prune_ffn": (32, 2, 4, 3), "prune_heads": (48, 1, 2, 3), "prune_depth": (48, 2, 4, 2)}[operation]
    assert tuple(config[size] for size in sizes) == wanted
    loaded = AutoModelForCausalLM.from_pretrained(here / "pruned")
    assert loaded.config.model_type == ("llama" if (family, operation) == ("qwen2", "prune_heads") else family)
    assert AutoTokenizer.from_pretrained(here / "pruned").chat_template == TOKENIZER.chat_template
    numbers = {name: value for name, value, *_ in run.kept_metrics}
    assert numbers["certificate/masked_kl"] < 1e-6
    assert numbers["certificate/perplexity_before"] > 1 and numbers["certificate/perplexity_after"] > 1
    assert " on 5 texts that ship" in result.table["perplexity"] and "(op.calibration=REF takes" in result.table["perplexity"]
    assert "->" in result.table["perplexity"] and "algo=distill algo.teacher=" in result.table["next 1"]


@pytest.mark.parametrize("operation", SETTINGS)
def test_the_certificate_sees_one_tensor_that_is_another(operation: str, here: Path, model: Models) -> None:
    asked = request(operation, model("llama"))
    plan = asked.op.plan(asked)
    written = execution.made(plan).recipe["digest.weights"]
    file = here / "pruned/model.safetensors"
    whole = load_file(file)
    for name in ("model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.v_proj.weight", "model.norm.weight"):
        save_file(whole | {name: whole[name] * 1.5}, file, {"format": "pt"})
        now = digested.digest_now(here / "pruned")
        # Told that these weights are the ones that were written, it still knows the answers that it must give.
        failed = {each.name for each in certify(plan, here / "pruned", now).failures}
        assert failed == {"rounding", "masked_kl"}, name
    failed = {each.name for each in certify(plan, here / "pruned", written).failures}
    assert "weights" in failed
    save_file(whole | {"model.norm.weight": whole["model.norm.weight"] * torch.nan}, file, {"format": "pt"})
    assert "finite" in {each.name for each in certify(plan, here / "pruned", digested.digest_now(here / "pruned")).failures}


def test_another_process_certifies_what_was_written_before_it(here: Path, model: Models) -> None:
    asked = request("prune_heads", model("qwen3"))
    written = execution.made(asked.op.plan(asked)).recipe["digest.weights"]
    assert certify(asked.op.plan(asked), here / "pruned", written).passed


def test_the_same_request_gives_the_same_weights_and_another_seed_others(
    here: Path, model: Models, jsonl: Callable[..., Path]
) -> None:
    ref = model("llama")
    rows = str(jsonl([{"prompt": f"{place} " * (place % 7 + 1), "response": "yes " * (place % 5 + 1)} for place in range(60)]))
    digests = [
        done(request("prune_ffn", ref, calibration=rows, output=name, seed=seed))[0].values["digest.weights"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_record_knows_rows_and_settings(here: Path, model: Models, jsonl: Callable[..., Path]) -> None:
    rows = str(jsonl([{"prompt": f"question {place}", "response": f"answer {place}"} for place in range(30)]))
    _, run = done(request("prune_heads", model("llama"), calibration=rows))
    assert [(one.context, one.rows) for one in run.inputs] == [("calibration", 10)]
    recipe = json.loads((here / "pruned/recipe.json").read_text())
    assert recipe["settings"]["samples"] == 4 and len(recipe["more"]["calibration.digest"]) == 64
    kept = json.loads((here / "pruned/pruning.json").read_text())
    assert kept["unit"] == "group" and all(len(each) == 1 for each in kept["kept"].values())


def test_named_layers_go_and_nothing_is_looked_at_for_them(here: Path, model: Models) -> None:
    result, _ = done(request("prune_depth", model("mistral"), layers=[2, 0]))
    assert result.table["layers"] == "0, 2" and list(json.loads((here / "pruned/pruning.json").read_text())["kept"]) == ["1"]


def test_magnitude_warns(here: Path, model: Models, capsys: pytest.CaptureFixture[str]) -> None:
    done(request("prune_ffn", model("llama"), importance="magnitude"))
    assert "far worse than chance" in capsys.readouterr().err


def test_an_adapter_is_merged_on_the_way(here: Path, model: Models) -> None:
    from peft import LoraConfig, get_peft_model

    base = load.model(load.inspect(resolve(model("qwen2")), load.ModelLoad()), load.ModelLoad(), merge=True)
    adapted = get_peft_model(base, LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "down_proj"]))
    adapted.save_pretrained(here / "adapter")
    result, _ = done(request("prune_ffn", str(here / "adapter")))
    assert not result.failed


@pytest.mark.parametrize(
    ("operation", "settings", "said"),
    [
        ("prune_heads", {"ratio": 0.9}, "leaves none of 2 key/value groups; the largest that works is op.ratio=0.5"),
        ("prune_depth", {"ratio": 0.99}, "leaves none of 3 layers; the largest that works is op.ratio=0.667"),
        ("prune_ffn", {"ratio": 0.01}, "the smallest that works is op.ratio=0.167"),
        ("prune_depth", {"layers": [7]}, "names layer 7, and there are 0 to 2"),
        ("prune_ffn", {"ratio": 1.5}, "is 1.5; give a share between 0 and 1"),
        ("prune_ffn", {"samples": 0}, "op.samples: is 0"),
        ("prune_ffn", {"multiple": 0}, "op.multiple: is 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    operation: str, settings: dict[str, Any], said: str, here: Path, model: Models
) -> None:
    with pytest.raises(UserError, match=said):
        done(request(operation, model("llama"), **settings))
    assert not (here / "pruned").exists()


def test_a_reward_model_and_sliding_heads_are_refused(here: Path, model: Models) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=1, vocab_size=64
    )
    LlamaForSequenceClassification(config).save_pretrained(here / "reward")
    with pytest.raises(UserError, match="is a reward model"):
        done(request("prune_ffn", str(here / "reward")))
    sliding = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    miniature("qwen2", here / "sliding", layers=3, tokenizer=TOKENIZER, **sliding)
    with pytest.raises(UserError, match="sliding-window attention"):
        done(request("prune_heads", str(here / "sliding")))
    assert not done(request("prune_depth", str(here / "sliding")))[0].failed


def test_rows_are_looked_at_once_for_all_ratios(here: Path, model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_llm.surgery.pruning import importance, remembered

    looked: list[int] = []
    forward = importance._forward
    monkeypatch.setattr(importance, "_forward", lambda model, rows: (looked.append(len(rows)), forward(model, rows))[1])
    monkeypatch.setattr(remembered, "_known", {})
    for ratio, name in ((0.25, "a"), (0.5, "b"), (0.25, "c")):
        asked = request("prune_ffn", model("llama"), ratio=ratio, output=name, samples=4 if name != "c" else 5)
        execution.made(asked.op.plan(asked))
    assert looked == [4, 5]
