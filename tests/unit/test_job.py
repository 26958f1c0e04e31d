"""What every algorithm builds its trainer from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from transformers import TrainingArguments

from mlops_llm import component
from mlops_llm.models import load
from mlops_llm.record import NullRun
from mlops_llm.train import student
from mlops_llm.train.algorithms.distill import Distill
from mlops_llm.train.algorithms.kto import neighbours
from mlops_llm.train.config import PACKAGES
from mlops_llm.train.examples import Answered, Pair
from mlops_llm.train.job import Job, even
from mlops_llm.train.ppo import critic
from mlops_llm.train.ppo import trainer as ppo
from mlops_llm.train.prompts import Prompt
from mlops_llm.train.samplers.hf import Hf

for package in PACKAGES:
    component.load(package)

PAIRS = [Pair([1, 2], [3, 3 + place], [4], place=place) for place in range(32)]
ANSWERED = [Answered([1, 2], [3 + place], wanted=place % 2 == 0, place=place) for place in range(32)]
PROMPTS = [Prompt([1, 2], [], {}, place=place) for place in range(32)]
COMPARED = {"dpo": PAIRS, "reward": PAIRS, "kto": ANSWERED}
WRITTEN = {**COMPARED, "sft": ANSWERED, "distill": ANSWERED}
EXAMPLES = {**WRITTEN, "grpo": PROMPTS, "rloo": PROMPTS, "ppo": PROMPTS}


class Trainer:
    """Stands for every trainer, and keeps what it is given."""

    ref_model = None

    def __init__(self, *models: Any, **given: Any) -> None:
        self.given = given

    def add_callback(self, callback: Any) -> None: ...

    def _calculate_rewards(self) -> None: ...


def built(algo: str, folder: Path, monkeypatch: pytest.MonkeyPatch, batch: int = 12, processes: int = 1) -> dict[str, Any]:
    """What an algorithm gives its trainer; the examples are held out too."""
    for name in ("SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO"):
        monkeypatch.setattr(trl, f"{name}Trainer", Trainer)
    monkeypatch.setattr(student, "Student", Trainer)
    monkeypatch.setattr(Distill, "_teacher", lambda self, job: None)
    monkeypatch.setattr(ppo, "PPOTrainer", Trainer)
    monkeypatch.setattr(critic, "Critic", lambda *given, **how: None)
    monkeypatch.setattr(load, "model", lambda *given, **how: None)
    sizes = dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), batch)
    arguments = {"output_dir": str(folder), "use_cpu": True, "seed": 0, "report_to": "none", **sizes}
    job = Job(
        model=SimpleNamespace(device="cpu"),
        tokenizer=SimpleNamespace(pad_token_id=0),
        train=EXAMPLES[algo],
        validation=EXAMPLES[algo],
        arguments=arguments,
        adapter=False,
        new_adapter=False,
        load=load.ModelLoad(),
        start=SimpleNamespace(),  # type: ignore[arg-type]
        rewards={"format": component.build("reward", "format")},
        rollout=Hf(),
        run=NullRun(),
        processes=processes,
    )
    settings = {} if algo in WRITTEN else {"generations": 2}
    found: dict[str, Any] = component.build("algo", algo, settings).trainer(job).given
    return found


@pytest.mark.parametrize("algo", EXAMPLES)
def test_one_process_takes_one_gpu_of_two(tmp_path, monkeypatch, algo):
    def both(self: Any) -> torch.device:
        self._n_gpu, self.distributed_state = 2, None
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(both))
    args = built(algo, tmp_path, monkeypatch)["args"]
    assert (args.n_gpu, args.train_batch_size) == (1, 12)


@pytest.mark.parametrize("algo", COMPARED)
def test_the_batches_of_an_evaluation_are_of_one_size(tmp_path, monkeypatch, algo):
    args = built(algo, tmp_path, monkeypatch)["args"]
    assert (args.per_device_train_batch_size, args.per_device_eval_batch_size) == (12, 8)
    assert built(algo, tmp_path, monkeypatch, processes=2)["args"].per_device_eval_batch_size == 8


def test_neighbours_are_those_of_the_batch_that_is_evaluated(tmp_path, monkeypatch):
    given = built("kto", tmp_path, monkeypatch)
    answers = [one.answer for one in ANSWERED]
    assert given["eval_dataset"]["KL_completion_ids"][:] == neighbours(answers, 8)
    assert given["train_dataset"]["KL_completion_ids"][:] == neighbours(given["train_dataset"]["completion_ids"][:], 12)


@pytest.mark.parametrize(
    ("count", "most", "unit", "size"),
    [(32, 12, 1, 8), (31, 12, 1, 11), (38, 32, 1, 19), (38, 64, 1, 38), (0, 8, 1, 1), (76, 32, 2, 26), (16, 16, 4, 16)],
)
def test_batches_of_an_evaluation_share_the_rows_evenly(count, most, unit, size):
    found = even(count, most, unit)
    assert found == size and found % unit == 0
