"""A distillation is a training: the command that starts it, and what becomes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_llm import component
from mlops_llm.component import build
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.ref import resolve
from mlops_llm.record import MemoryRun
from mlops_llm.surgery import distillation
from mlops_llm.surgery.config import Surgery
from tests.families import miniature


@pytest.fixture
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    component.load("mlops_llm.surgery.ops")
    miniature("qwen2", here / "small", tokenizer=load.tokenizer(resolve("tiny")))
    return here


def asked(**settings: Any) -> Surgery:
    own = {key: settings.pop(key) for key in ("models", "dataset", "name", "output") if key in settings}
    return Surgery(op=build("op", "distill", settings), **{"models": ["tiny", "small"], "dataset": "sales_sft", **own})


def test_the_command_is_printed_and_its_settings_are_checked_before(here: Path) -> None:
    found = asked(settings={"trainer.max_steps": 4, "peft": "lora"}, dry_run=True, name="pupil")
    words = found.op.prepare(found).table["command"].split()
    assert words[:3] == ["python", "-m", "mlops_llm.train"] and "model=small" in words and "algo.teacher=tiny" in words
    assert {"dataset=sales_sft", "algo=distill", "trainer.max_steps=4", "peft=lora", "register_as=pupil"} <= {*words}
    wrong = asked(settings={"trainer.max_step": 4})
    with pytest.raises(UserError, match=r"op\.settings: Key 'max_step' not in 'Trainer' \(did you mean max_steps\?\)"):
        wrong.op.prepare(wrong)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"models": ["tiny"]}, "models: names 1 models; give two"),
        ({"dataset": None}, "dataset: names no rows to learn"),
        ({"settings": {"model": "x"}}, "op.settings: sets model, which the command tells already"),
        ({"settings": [1]}, "op.settings: is no mapping"),
        ({"models": ["other", "small"]}, "has another vocabulary than the student"),
        ({"temperature": 0.0}, "op.temperature: is 0"),
    ],
)
def test_what_cannot_be_taught_is_refused(settings: dict[str, Any], said: str, here: Path) -> None:
    tokenizer = load.tokenizer(resolve("tiny"))
    tokenizer.add_tokens(["one more"])
    miniature("llama", here / "other", tokenizer=tokenizer)
    with pytest.raises(UserError, match=said):
        wrong = asked(**settings)
        wrong.op.prepare(wrong)


def test_a_training_that_fails_says_its_code_and_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "_check", lambda words: None)
    monkeypatch.setattr(distillation, "command", lambda found, name: [sys.executable, "-c", "raise SystemExit(3)"])
    found, run = asked(), MemoryRun("teach")
    with pytest.raises(UserError, match=r"teach-training: the training ended with code 3; .*resume=teach-training"):
        found.op.prepare(found)(run)
    assert [each.name for each in run.used] == ["tiny", "small"] and run.kept_tags["training"] == "teach-training"
