"""Every training method, killed with -9 and resumed, ends in the weights of the uninterrupted run.

One kill of each of four methods, of all weights or of an adapter in turn; with MLOPS_LLM_KILLS=N (make resume) N kills of each
method and of both, in processes that are started afresh.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.commands import ok, start, train, wait_for_step
from tests.record import client, run_of, steps_of

METHODS = {
    "sft": ["+experiment=sft_sales", "ema.decay=0.9", "ema.start_step=3"],
    "dpo": ["+experiment=dpo_sales"],
    "kto": ["+experiment=kto_sales"],
    "grpo": ["+experiment=grpo_math", "trainer.batch_size=16", "algo.iterations=2", "algo.steps_per_generation=1"],
    "ppo": ["+experiment=ppo_math", "trainer.batch_size=16", "algo.kl_target=1", "algo.kl_horizon=100", "ema.decay=0.9"],
    "distill": ["+experiment=distill_sales", "algo.top_k=16"],
    "rloo": ["+experiment=grpo_math", "algo=rloo", "trainer.batch_size=16", "algo.beta=0.05"],
    "reward": ["+experiment=reward_sales"],
}
LENGTH = [
    "trainer.max_steps=20", "trainer.save_steps=5", "trainer.eval_steps=5", "trainer.logging_steps=1", "samples.count=0",
    "register_as=null",
]  # fmt: skip
UNDROPPED = ("dpo", "kto", "grpo", "rloo", "ppo")
"""Methods that compare the model with another one and refuse dropout."""
KILLS = int(os.environ.get("MLOPS_LLM_KILLS", "0"))
ALWAYS = {"dpo": "lora", "grpo": "none", "ppo": "lora", "distill": "none"}
"""What the suite kills each time; `test_interruption` kills supervised fine-tuning."""
CASES = [(method, peft) for method in METHODS for peft in ("none", "lora") if KILLS or ALWAYS.get(method) == peft]


def final(folder: Path, run: str) -> str:
    return str(json.loads((folder / f"outputs/{run}/result.json").read_text())["digest.weights"])


def digests(run: Path) -> dict[str, tuple[str, float]]:
    """Weights and numbers of the averaged checkpoints."""
    facts = {path.parent.name: json.loads(path.read_text()) for path in run.glob("checkpoint-*-ema/.complete.json")}
    return {name: (each["tags"]["digest.weights"], each["metrics"]) for name, each in facts.items()}


@pytest.mark.parametrize(("method", "peft"), CASES)
def test_a_killed_run_ends_in_the_weights_of_the_uninterrupted_one(tmp_path: Path, method: str, peft: str) -> None:
    dropout = ["peft.dropout=0.1"] if peft == "lora" and method not in UNDROPPED else []
    words = [*METHODS[method], *LENGTH, f"peft={peft}", *dropout]
    fresh = KILLS > 0
    ok(train(tmp_path, *words, "run_name=whole", fresh=fresh))
    for kill in range(max(1, KILLS)):
        process, step = start(tmp_path, *words, f"run_name=killed-{kill}", fresh=fresh), random.randint(6, 19)
        wait_for_step(tmp_path, f"killed-{kill}", step, process)
        process.kill()
        process.communicate()
        said = ok(train(tmp_path, f"resume=killed-{kill}", fresh=fresh))
        assert "resume verified" in said, f"{method} {peft} killed at step {step}"
        assert final(tmp_path, f"killed-{kill}") == final(tmp_path, "whole"), f"{method} {peft} killed at step {step}"
        averages = [digests(tmp_path / f"outputs/{name}") for name in ("whole", f"killed-{kill}")]
        assert averages[0] == averages[1] and bool(averages[0]) is any("ema.decay" in word for word in words)
        steps = [(tmp_path / f"outputs/{name}/steps.jsonl").read_text() for name in ("whole", f"killed-{kill}")]
        assert steps[0] == steps[1]
        store = client(tmp_path)
        whole, killed = run_of(store, "whole"), run_of(store, f"killed-{kill}")
        assert killed.data.tags["resume.verified"] == "true"
        assert steps_of(store, killed, "train/loss") == steps_of(store, whole, "train/loss") == list(range(1, 21))
