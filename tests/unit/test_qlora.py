"""An adapter on a base of 4-bit numbers; what needs bitsandbytes runs where it is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlops_llm.errors import UserError
from mlops_llm.models import adapter, load
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.train import peft
from mlops_llm.train.config import Train
from mlops_llm.train.peft import Adapter, Full, Lora, Qlora
from mlops_llm.train.samplers.vllm import Vllm

IDS = torch.tensor([[5, 17, 200, 31, 8]])
HOW = ModelLoad()


def inspected(ref: str | Path) -> Files:
    return load.inspect(resolve(str(ref)), HOW)


@pytest.fixture
def merged(here: Path) -> Path:
    """An adapter on a base that is an adapter."""
    for name, start in (("first", "tiny"), ("second", here / "first")):
        how = Lora(r=1, adapter=Adapter.merge)
        how.load(inspected(start), HOW).save_pretrained(here / name)
        adapter.write_origin(here / name, how.base(inspected(start)))
    return here / "second"


def test_what_cannot_run_is_refused(merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"peft: bitsandbytes is not installed; install it with: pip install 'mlops-llm\[qlora\]'"
    ):
        Qlora().starting(inspected("tiny"))
    monkeypatch.setattr(peft, "find_spec", lambda name: name)
    assert (
        Qlora(r=1)
        .starting(inspected(merged.parent / "first"))
        .told(inspected(merged.parent / "first"))
        .startswith("trained on")
    )
    said = "a base with a merged adapter cannot be loaded as 4-bit numbers; take peft=lora"
    with pytest.raises(UserError, match=f"{said}$"):
        Qlora().starting(inspected(merged))
    with pytest.raises(UserError, match=f"{said}, or leave out peft.adapter=merge"):
        Qlora(adapter=Adapter.merge).starting(inspected(merged.parent / "first"))
    with pytest.raises(UserError, match="rollout: cannot take the weights of a base of 4-bit numbers"):
        Vllm().check(Train(peft=Qlora()))


def test_its_base_needs_less_memory() -> None:
    large = Files(resolve("tiny"), {"vocab_size": 32_000, "hidden_size": 4096}, 7_000_000_000, 14_000_000_000)
    assert Full().weights(large, 2) == Lora().weights(large, 2) == 14_000_000_000
    assert 3.5e9 < Qlora().weights(large, 2) < 4.1e9
    assert 0 < Qlora().weights(inspected("tiny"), 4) < Lora().weights(inspected("tiny"), 4)


def test_gradients_pass_through_the_base_also_after_an_evaluation() -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    model = Qlora().load(inspected("tiny"), HOW)
    kinds = {type(module).__name__ for module in model.get_base_model().modules()}
    assert "Linear4bit" in kinds and all("lora_" in name for name, each in model.named_parameters() if each.requires_grad)

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        return [parameter.grad.clone() for name, parameter in model.named_parameters() if "lora_B" in name]

    before = gradients()
    model.eval()
    with torch.no_grad():
        answers = model(input_ids=IDS).logits
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before, gradients(), strict=True))
    whole = load.model(inspected("tiny"), HOW, merge=False)
    with torch.no_grad():
        assert 0 < (whole(IDS).logits.softmax(-1) - answers.softmax(-1)).abs().max() < 0.3


def test_a_base_that_is_broken_on_disk_is_refused(here: Path) -> None:
    pytest.importorskip("bitsandbytes")
    shutil.copytree(resolve("tiny").folder, here / "model")
    tensors = load_file(here / "model/model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(tensors, here / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"tensor model.layers.0.self_attn.q_proj.weight holds NaN or infinity"):
        Qlora().load(inspected(here / "model"), HOW)
