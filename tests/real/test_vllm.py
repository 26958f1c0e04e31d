"""A real vLLM samples: one method each time, since it takes half a minute to start; all of them with MLOPS_LLM_VLLM=1."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import ok, train
from tests.record import client, run_of

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
ALL = bool(os.environ.get("MLOPS_LLM_VLLM"))
CASES = [(algo, peft) for algo in ("grpo", "rloo", "ppo") for peft in ("none", "lora")] if ALL else [("grpo", "lora")]
SHORT = ["trainer.max_steps=4", "trainer.eval_steps=2", "trainer.save_steps=2", "samples.count=0", "register_as=null"]


@pytest.mark.parametrize(("algo", "peft"), CASES)
def test_answers_are_those_of_the_model_as_it_is_now(tmp_path: Path, algo: str, peft: str) -> None:
    words = ["+experiment=ppo_math", f"algo={algo}", *SHORT, "trainer.batch_size=16", f"peft={peft}", "rollout=vllm"]
    ok(train(tmp_path, *words, "trainer.learning_rate=2e-3", "run_name=fast", fresh=True))
    store = client(tmp_path)
    run = run_of(store, "fast")
    history = store.get_metric_history(run.info.run_id, "eval/reward")
    assert [metric.step for metric in history] == [0, 2, 4] and run.data.params["choice.rollout"] == "vllm"
    if algo != "rloo":
        apart = store.get_metric_history(run.info.run_id, "train/sampling/sampling_logp_difference/mean")
        assert all(metric.value < 0.05 for metric in apart)  # stale weights would be far apart by the last step


@pytest.mark.skipif(not ALL, reason="starts vLLM twice: set MLOPS_LLM_VLLM=1")
def test_a_run_goes_on(tmp_path: Path) -> None:
    words = ["+experiment=grpo_math", *SHORT, "rollout=vllm", "run_name=fast"]
    ok(train(tmp_path, *words, fresh=True))
    store = client(tmp_path)
    store.set_terminated(run_of(store, "fast").info.run_id, "KILLED")
    shutil.rmtree(tmp_path / "outputs/fast/checkpoint-4")
    ok(train(tmp_path, "resume=fast", fresh=True))
    assert run_of(store, "fast").info.status == "FINISHED"
