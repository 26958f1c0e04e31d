"""An adapter on a base that is an adapter itself: found, checked and loaded again as it was in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mlops_llm.errors import UserError
from mlops_llm.models import adapter, load
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.train.peft import Adapter, Lora

IDS = torch.tensor([[5, 17, 200, 31, 8]])
HOW = ModelLoad()
LAYERS = 2 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 384))
"""Widths of the linear layers of tiny, in and out."""


def inspected(ref: str | Path) -> Files:
    return load.inspect(resolve(str(ref)), HOW)


def trained(how: Lora, start: Files, folder: Path) -> torch.Tensor:
    """Make an adapter of random numbers, save it as a training does, and return the logits that it gave in memory."""
    model = how.load(start, HOW).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert "lora_" in name
                parameter.normal_(std=0.05)
        logits = model(IDS).logits
    model.save_pretrained(folder)
    adapter.write_origin(folder, how.base(start))
    return logits


@pytest.fixture
def chain(here: Path) -> tuple[Path, torch.Tensor]:
    """`first` on tiny, `second` on both merged, `third` on all three; the last one and its logits."""
    torch.manual_seed(0)
    trained(Lora(), inspected("tiny"), here / "first")
    trained(Lora(r=4, adapter=Adapter.merge), inspected(here / "first"), here / "second")
    logits = trained(Lora(r=2, adapter=Adapter.merge), inspected(here / "second"), here / "third")
    return here / "third", logits


def logits_of(folder: Path, merge: bool) -> torch.Tensor:
    with torch.no_grad():
        return load.model(inspected(folder), HOW, merge=merge).eval()(IDS).logits


def test_a_chain_of_merged_adapters_is_loaded_as_it_was_in_memory(chain: tuple[Path, torch.Tensor]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, logits = chain
    assert torch.equal(logits_of(folder, merge=False), logits)
    assert torch.allclose(logits_of(folder, merge=True), logits, atol=1e-4)
    by_hand = AutoModelForCausalLM.from_pretrained(resolve("tiny").folder, dtype=torch.float32)
    for name in ("first", "second", "third"):
        by_hand = PeftModel.from_pretrained(by_hand, folder.parent / name).merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(by_hand.eval()(IDS).logits, logits, atol=1e-4)
    assert not torch.allclose(logits_of(folder.parent / "first", merge=True), logits, atol=1e-2)


def test_training_on_a_merged_base_keeps_what_it_lies_on(chain: tuple[Path, torch.Tensor], here: Path) -> None:
    start = inspected(chain[0])
    logits = trained(Lora(), start, here / "fourth")
    assert start.base is not None and inspected(here / "fourth").base == start.base
    assert torch.equal(logits_of(here / "fourth", merge=False), logits)
    assert load.tokenizer_of(start)("你好").input_ids == load.tokenizer_of(inspected("tiny"))("你好").input_ids


def test_a_program_that_does_not_merge_stops(chain: tuple[Path, torch.Tensor]) -> None:
    from peft import AutoPeftModelForCausalLM

    with pytest.raises((OSError, ValueError)):
        AutoPeftModelForCausalLM.from_pretrained(chain[0])


def changed(weights: Path) -> None:
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)


def test_a_base_that_is_not_what_it_was_is_refused_at_any_depth(chain: tuple[Path, torch.Tensor], here: Path) -> None:
    shutil.copytree(here / "first", here / "kept")
    changed(here / "first/adapter_model.safetensors")
    with pytest.raises(UserError, match=r"the adapter's base .* has other weights now"):
        inspected(chain[0])
    shutil.rmtree(here / "first")
    with pytest.raises(UserError, match=r"the adapter's base .* is gone"):
        inspected(chain[0])
    shutil.move(here / "kept", here / "first")
    inspected(chain[0])
    (here / "first" / adapter.ORIGIN).unlink()  # what lies deeper is known to those above
    shutil.copytree(resolve("tiny").folder, here / "other")
    changed(here / "other/model.safetensors")
    config = json.loads((here / "first" / adapter.CONFIG).read_text())
    (here / "first" / adapter.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(here / "other")}))
    inspected(here / "first")
    with pytest.raises(UserError, match=r"other' has other weights now"):
        inspected(chain[0])


def test_an_adapter_on_itself_is_refused(chain: tuple[Path, torch.Tensor], here: Path) -> None:
    (here / "first" / adapter.ORIGIN).unlink()
    (here / "first" / adapter.CONFIG).write_text(json.dumps({"base_model_name_or_path": str(here / "third"), "r": 8}))
    with pytest.raises(UserError, match="the adapter lies on itself"):
        inspected(here / "third")


def test_a_kept_adapter_keeps_its_own_settings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(Lora(r=4, alpha=8, dropout=0.05, targets=["q_proj", "v_proj"]), inspected("tiny"), here / "first")
    start = inspected(here / "first")
    kept = Lora(r=16, targets=["v_proj", "q_proj"]).starting(start)
    assert kept == Lora(r=4, alpha=8, dropout=0.05, targets=["q_proj", "v_proj"])
    assert "its own r=4, alpha=8.0, dropout=0.05; peft.r, peft.alpha, peft.dropout would" in capsys.readouterr().err
    assert kept.trained(start) == start.adapter < Lora(r=16, adapter=Adapter.merge).trained(start) == 16 * LAYERS
    assert Lora(r=4, alpha=8, dropout=0.05).starting(start) == kept  # all-linear stands for no names
    new = Lora(r=16, adapter=Adapter.merge)
    assert new.starting(start) is new and "merged" in new.told(start) and new.told(inspected("tiny")) == ""
    assert capsys.readouterr().err == ""
