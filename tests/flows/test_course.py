"""What several features make of one training together: averages, early stops, rotation, divergence, resumption."""

from __future__ import annotations

import gc
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.record import MemoryRun
from mlops_llm.train.config import PACKAGES, Best, Samples, Schedule, Train, Trainer
from mlops_llm.train.ema import Ema
from mlops_llm.train.overfit import Overfit
from mlops_llm.train.plan import prepare
from mlops_llm.train.train import fit

LENGTH = {"max_steps": 8, "eval_steps": 2, "save_steps": 8, "logging_steps": 1, "batch_size": 4}


def settings(output: Path, algo: str = "sft", values: dict[str, Any] | None = None, **more: Any) -> Train:
    """Of a short training of `tiny`."""
    for package in PACKAGES:
        component.load(package)
    trainer = Trainer(**{**LENGTH, **more.pop("trainer", {})})
    return Train(
        dataset="sales_sft",
        algo=component.build("algo", algo, values),
        peft=component.build("peft", "none"),
        rollout=component.build("rollout", "hf"),
        trainer=trainer,
        samples=Samples(count=0),
        output=str(output),
        **more,
    )


def trained(asked: Train) -> MemoryRun:
    run = MemoryRun()
    fit(prepare(asked), run)
    return run


def test_an_early_stop_records_every_number_once(tmp_path: Path) -> None:
    # Steps that are far too long make it worse at once.
    steep = {"learning_rate": 3.0, "schedule": Schedule.constant}
    run = trained(settings(tmp_path / "out", trainer=steep, ema=Ema(decay=0.5), overfit=Overfit(patience=1)))
    counted = Counter((key, step) for key, _, step, *_ in run.kept_metrics)
    assert not [each for each, times in counted.items() if times > 1]
    assert run.kept_tags["stopped.step"] == "4"
    assert [each.name for each in run.checkpoints] == ["checkpoint-4-ema", "checkpoint-4"]
    assert {("eval/loss", 2), ("ema/eval/loss", 2), ("eval/loss", 4), ("ema/eval/loss", 4)} <= counted.keys()


def test_weights_that_are_no_numbers_are_not_published_and_no_value_to_stop_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlops_llm.train.callbacks import Recorder

    inner = Recorder.on_step_end

    def broken(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        if state.global_step == 4:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        return inner(self, args, state, control, model=model, **kwargs)

    monkeypatch.setattr(Recorder, "on_step_end", broken)
    run = MemoryRun()
    with pytest.raises(UserError, match="the training diverged: the loss is nan at step 5"):
        fit(prepare(settings(tmp_path / "out", overfit=Overfit(patience=1))), run)
    assert run.checkpoints == [] and run.kept_tags["diverged.step"] == "5" and "stopped.step" not in run.kept_tags


def test_averages_whose_raw_weights_were_cut_off_are_not_taken_up(tmp_path: Path) -> None:
    output, often = tmp_path / "out", {"save_steps": 2, "save_total_limit": 1}
    asked = settings(output, trainer=often, ema=Ema(decay=0.5))
    whole = trained(asked)
    # As a kill between the two leaves them: the averages of the last step are whole, its raw weights are not.
    last = json.loads((output / "checkpoint-8/.complete.json").read_text())["tags"]["digest.weights"]
    asked = settings(tmp_path / "killed", trainer=often | {"max_steps": 6}, ema=Ema(decay=0.5))
    trained(asked)
    (tmp_path / "killed/checkpoint-6/.complete.json").unlink()
    assert (tmp_path / "killed/checkpoint-6-ema/.complete.json").is_file()
    names = [each.name for each in whole.checkpoints]
    assert names[-2:] == ["checkpoint-8-ema", "checkpoint-8"] and last
    from mlops_llm.train.checkpoints import Shelf, drop_unfinished

    drop_unfinished(tmp_path / "killed")
    shelf = Shelf(MemoryRun(), Best("eval/loss"), 1, {}, {})
    shelf.restore(tmp_path / "killed")
    assert all(each.folder.is_dir() for each in shelf.checkpoints)
    assert not any(each.name.startswith("checkpoint-6") for each in shelf.checkpoints)


def test_a_teacher_is_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_llm.train import teacher

    inner, alive = teacher.mark, list[int]()

    def counted(model: Any, *arguments: Any) -> Any:
        gc.collect()
        alive.append(sum(type(each).__name__ == "Qwen2ForCausalLM" for each in gc.get_objects()))
        return inner(model, *arguments)

    monkeypatch.setattr(teacher, "mark", counted)
    before = sum(type(each).__name__ == "Qwen2ForCausalLM" for each in gc.get_objects())
    trained(settings(tmp_path / "out", "distill", {"teacher": "tiny"}, trainer={"max_steps": 2, "save_steps": 2}))
    assert max(alive) - before <= 2


def test_another_trainings_files_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    asked = settings(tmp_path / "out", trainer={"max_steps": 2, "save_steps": 2})
    trained(asked)
    with pytest.raises(UserError, match="another training's files are there"):
        fit(prepare(settings(tmp_path / "out", trainer={"max_steps": 2, "save_steps": 2})), MemoryRun())
