"""A training that is told to stop: when it saves, what it leaves, and what goes again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mlops_llm.launch import stopping
from mlops_llm.record import MemoryRun
from mlops_llm.train.checkpoints import COMPLETE, Shelf, curves, is_aside, whole
from mlops_llm.train.config import Best
from mlops_llm.train.parting import Parting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is to stop."""
    monkeypatch.setattr(stopping, "asked", lambda: True)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Handlers of signals are as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, each in before.items():
        signal.signal(number, each)


def at(step: int, last: int = 20, *, save: bool = False, evaluate: bool = False) -> tuple[Any, Any]:
    control = SimpleNamespace(should_save=save, should_evaluate=evaluate, should_training_stop=False)
    return SimpleNamespace(global_step=step, max_steps=last), control


def ends(parting: Parting, step: int, **due: bool) -> bool:
    """Whether the training ends at a step, as the Trainer calls a callback there."""
    state, control = at(step, **due)
    parting.on_step_end(None, state, control)
    if control.should_evaluate:
        parting.on_evaluate(None, state, control)
    if not control.should_save:
        return False
    try:
        parting.on_save(None, state, control)
    except stopping.Terminated:
        return True
    return False


def test_nobody_is_told_to_stop_and_nothing_happens() -> None:
    parting = Parting()
    assert not any(ends(parting, step, save=step % 5 == 0) for step in range(1, 21))
    assert parting.aside is None


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("step", "due", "aside"),
    [
        (3, {}, 3),
        (5, {"evaluate": True}, 5),
        (10, {"evaluate": True, "save": True}, None),
        (10, {"save": True}, None),
    ],
)
def test_it_saves_aside_where_no_checkpoint_is_due(step: int, due: dict[str, bool], aside: int | None) -> None:
    parting = Parting()
    assert ends(parting, step, **due)
    assert parting.aside == aside


@pytest.mark.usefixtures("asked")
@given(st.integers(1, 7), st.integers(1, 19))
def test_it_stops_at_the_end_of_a_round_and_the_last_step_is_done_to_its_end(cycle: int, first: int) -> None:
    parting = Parting(cycle)
    stops = next((step for step in range(first, 21) if ends(parting, step, save=step == 20)), None)
    wanted = -(-first // cycle) * cycle
    assert stops == (wanted if wanted < 20 else None)


def folder(output: Path, step: int, value: float) -> Path:
    """The files of a checkpoint."""
    place = output / f"checkpoint-{step}"
    place.mkdir(parents=True)
    save_file({"w": torch.tensor([value])}, place / "model.safetensors")
    return place


def test_what_is_set_aside_is_gone_on_from_and_is_in_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stopping.SAVED, str(tmp_path / "saved"))
    run = MemoryRun()
    shelf = Shelf(run, Best("eval/loss"), None, {}, {})
    shelf.add(folder(tmp_path, 10, 1.0), 10, {"eval/loss": 2.0})
    shelf.set_aside(folder(tmp_path, 13, 2.0), 13, {"evaluations": {10: {"eval/loss": 2.0}}})
    assert (tmp_path / "saved").read_text() == "saved at step 13"
    assert [each.name for each in shelf.checkpoints] == ["checkpoint-10"]
    assert [(each.name, is_aside(each)) for each in whole(tmp_path)] == [("checkpoint-10", False), ("checkpoint-13", True)]
    assert curves(tmp_path / "checkpoint-13") == {"evaluations": {10: {"eval/loss": 2.0}}}
    later = Shelf(run, Best("eval/loss"), None, {}, {})
    later.restore(tmp_path)
    assert [each.name for each in later.checkpoints] == ["checkpoint-10"]
    later.set_aside(folder(tmp_path, 16, 3.0), 16, {})
    assert not (tmp_path / "checkpoint-13").exists()
    later.add(folder(tmp_path, 20, 4.0), 20, {"eval/loss": 1.0})
    assert sorted(path.parent.name for path in tmp_path.glob(f"*/{COMPLETE}")) == ["checkpoint-10", "checkpoint-20"]
    assert [each.name for each in run.checkpoints] == ["checkpoint-10", "checkpoint-20"]
