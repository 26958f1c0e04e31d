from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlops_llm import digest
from mlops_llm.record import Checkpoint, MemoryRun
from mlops_llm.train import launcher
from mlops_llm.train.checkpoints import COMPLETE, Shelf, curves, drop_unfinished, whole
from mlops_llm.train.config import Best, Mode
from mlops_llm.train.train import fit


class Registry(MemoryRun):
    """A record whose registry names some checkpoints."""

    named: frozenset[str] = frozenset()

    def forget(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.name not in self.named and super().forget(checkpoint)


def saved(output: Path, step: int) -> Path:
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"w": np.full(4, step, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"state")
    return folder


def shelf(run: MemoryRun, limit: int | None = None, best: Best | None = None) -> Shelf:
    return Shelf(run, best or Best("eval/loss"), limit, {"base": "tiny"}, {"digest.template": "abc"})


def fill(target: Shelf, output: Path, losses: dict[int, float | None]) -> None:
    for step, loss in losses.items():
        target.add(saved(output, step), step, {} if loss is None else {"eval/loss": loss})


def steps(output: Path) -> list[int]:
    assert all((folder / "model.safetensors").is_file() for folder in output.iterdir())
    return sorted(int(folder.name.rpartition("-")[2]) for folder in output.iterdir())


def test_a_checkpoint_is_published_with_its_numbers_and_called_whole_last(tmp_path):
    run = MemoryRun()
    folder = saved(tmp_path, 5)
    assert whole(tmp_path) == []
    checkpoint = shelf(run).add(folder, 5, {"eval/loss": 1.5})
    size = (folder / "model.safetensors").stat().st_size + len("{}")
    assert checkpoint.name == "checkpoint-5"
    assert checkpoint.tags == {"digest.template": "abc", "digest.weights": digest.weights(folder), "bytes": str(size)}
    assert run.checkpoints == [checkpoint] == whole(tmp_path)
    assert run.kept_metrics == [("eval/loss", 1.5, 5, "checkpoint-5", "validation")]


def test_what_cannot_be_published_is_not_whole(tmp_path):
    class Broken(MemoryRun):
        def checkpoint(self, checkpoint, params):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        shelf(Broken()).add(saved(tmp_path, 5), 5, {})
    assert whole(tmp_path) == []


def average(output: Path, step: int) -> Path:
    return saved(output, step).rename(output / f"checkpoint-{step}-ema")


def test_averages_stand_beside_the_raw_weights_and_go_with_them(tmp_path):
    run = Registry()
    target = shelf(run, limit=1)
    for step, raw, smooth in ((5, 3.0, 1.0), (10, 2.0, 1.5), (15, 1.8, 1.7)):
        target.add(average(tmp_path, step), step, {"eval/loss": smooth}, prefix="ema/")
        target.add(saved(tmp_path, step), step, {"eval/loss": raw})
    assert getattr(target.best(), "name", "") == "checkpoint-5-ema"
    assert [each.name for each in whole(tmp_path)] == [
        "checkpoint-5-ema", "checkpoint-5", "checkpoint-15-ema", "checkpoint-15"]  # fmt: skip
    assert ("ema/eval/loss", 1.5, 10, "checkpoint-10-ema", "validation") in run.kept_metrics
    again = shelf(run)
    again.restore(tmp_path)
    assert [each.name for each in again.checkpoints] == [each.name for each in target.checkpoints]
    assert getattr(again.best(), "name", "") == "checkpoint-5-ema"


def test_averages_whose_raw_weights_were_cut_off_are_dropped(tmp_path):
    shelf(MemoryRun()).add(average(tmp_path, 5), 5, {})
    saved(tmp_path, 5)
    drop_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_average_stays_whose_raw_weights_were_rotated_away(tmp_path):
    run = Registry()
    run.named = frozenset({"checkpoint-5-ema"})
    target = shelf(run, limit=1)
    for step in (5, 10, 15):
        target.add(average(tmp_path, step), step, {"eval/loss": 1.0 - step / 100}, prefix="ema/")
        target.add(saved(tmp_path, step), step, {"eval/loss": 2.0 - step / 100})
    target.add(average(tmp_path, 20), 20, {})
    drop_unfinished(tmp_path)  # the raw weights of step 20 were not even begun
    kept = ["checkpoint-15", "checkpoint-15-ema", "checkpoint-5-ema"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_unfinished_folders_are_dropped_and_whole_ones_are_not_touched(tmp_path):
    shelf(MemoryRun()).add(saved(tmp_path, 5), 5, {})
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in (tmp_path / "checkpoint-5").iterdir()}
    saved(tmp_path, 10)
    (tmp_path / "artifacts").mkdir()
    drop_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "checkpoint-5"]
    assert {file.name: hashlib.sha256(file.read_bytes()).digest() for file in (tmp_path / "checkpoint-5").iterdir()} == before
    drop_unfinished(tmp_path / "none")


def test_what_was_cut_off_is_dropped_once_before_several_processes_start(tmp_path, monkeypatch):
    shelf(MemoryRun()).add(saved(tmp_path, 5), 5, {})
    saved(tmp_path, 10)
    several = SimpleNamespace(several=True)
    plan = SimpleNamespace(used={}, settings=SimpleNamespace(output=str(tmp_path), resume="x", distributed=several))
    monkeypatch.setattr(launcher, "launched", lambda plan, run: steps(tmp_path))
    assert fit(plan) == [5]  # type: ignore[arg-type,comparison-overlap]


class TestBest:
    @pytest.mark.parametrize(
        ("losses", "best"),
        [
            ({1: 3.0, 2: 1.0, 3: 2.0}, 2),
            ({1: 1.0, 2: 1.0, 3: 2.0}, 1),
            ({1: 0.0, 2: -1.0, 3: 0.5}, 2),
            ({1: None, 2: 3.0, 3: None}, 2),
            ({1: None, 2: None}, 2),
        ],
        ids=["lowest", "earlier of equals", "zero and below", "one has a number", "none has: the last"],
    )
    def test_of_a_loss(self, tmp_path, losses, best):
        target = shelf(MemoryRun())
        fill(target, tmp_path, losses)
        assert target.best().step == best
        assert target.score(target.best()) == losses[best]

    def test_of_nothing(self):
        assert shelf(MemoryRun()).best() is None

    @pytest.mark.parametrize(
        ("best", "higher"),
        [
            (Best("eval/loss"), False), (Best("perplexity"), False), (Best("score/bleu"), True),
            (Best("eval/loss", Mode.max), True), (Best("score/bleu", Mode.min), False),
        ],
    )  # fmt: skip
    def test_direction(self, tmp_path, best, higher):
        assert best.higher_is_better == higher
        target = shelf(MemoryRun(), best=best)
        for step, value in ((1, 0.1), (2, 0.9), (3, 0.5)):
            target.add(saved(tmp_path, step), step, {best.metric: value, "other": -step})
        assert target.best().step == (2 if higher else 1)

    def test_nan_is_no_number_to_choose_by(self, tmp_path):
        target = shelf(MemoryRun())
        fill(target, tmp_path, {1: float("nan"), 2: 2.0, 3: 1.0})
        assert target.best().step == 3


class TestRotation:
    def test_without_a_limit_all_stay(self, tmp_path):
        fill(shelf(MemoryRun()), tmp_path, dict.fromkeys(range(1, 6), 1.0))
        assert steps(tmp_path) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("limit", [1, 2, 3])
    @pytest.mark.parametrize("best", [1, 3, 6])
    def test_best_and_last_stay_and_the_oldest_go(self, tmp_path, limit, best):
        run = MemoryRun()
        target = shelf(run, limit)
        for step in range(1, 7):
            fill(target, tmp_path, {step: 0.5 if step == best else 1.0 + step})
            there = steps(tmp_path)
            best_yet = best if step >= best else 1
            assert {step, best_yet} <= set(there)
            assert len(set(there) - {step, best_yet}) <= limit
            others = [each for each in range(1, step) if each != best_yet]
            kept = [each for each in there if each in others]
            assert kept == (others[-len(kept) :] if kept else [])
            assert [each.step for each in whole(tmp_path)] == there
            assert [each.step for each in target.checkpoints] == there
            assert [each.step for each in run.checkpoints] == there

    def test_what_the_registry_names_stays(self, tmp_path):
        run = Registry()
        run.named = frozenset({"checkpoint-2", "checkpoint-3"})
        target = shelf(run, limit=1)
        fill(target, tmp_path, {step: 1.0 - step / 10 for step in range(1, 7)})
        assert {2, 3, 6} <= set(steps(tmp_path))
        assert not {1, 4} & set(steps(tmp_path))
        assert digest.weights(tmp_path / "checkpoint-2") == target.checkpoints[0].tags["digest.weights"]

    def test_numbers_of_what_went_do_not_decide(self, tmp_path):
        target = shelf(MemoryRun(), limit=1)
        fill(target, tmp_path, {1: 3.0, 2: 2.0, 3: 4.0, 4: 5.0})
        assert target.best().step == 2
        assert {each.step for each in target.checkpoints} == set(steps(tmp_path))


def test_a_later_process_takes_up_what_is_whole(tmp_path):
    first = shelf(MemoryRun())
    fill(first, tmp_path, {10: 2.0, 2: 1.0, 30: 3.0})
    saved(tmp_path, 40)
    again = shelf(MemoryRun())
    again.restore(tmp_path)
    assert [each.step for each in again.checkpoints] == [2, 10, 30]
    assert again.checkpoints == sorted(first.checkpoints, key=lambda each: each.step)
    assert again.best().step == 2
    assert [again.score(each) for each in again.checkpoints] == [1.0, 2.0, 3.0]


def test_the_numbers_before_a_checkpoint_come_back_with_it(tmp_path):
    so_far = {"evaluations": {0: {"eval/loss": 7.5}, 5: {"eval/loss": 2.0}}, "rates": {5: 1234.5}}
    shelf(MemoryRun()).add(saved(tmp_path, 5), 5, {"eval/loss": 2.0}, so_far)
    assert curves(tmp_path / "checkpoint-5") == so_far


def test_a_later_process_rotates_what_it_took_up(tmp_path):
    fill(shelf(MemoryRun()), tmp_path, {1: 3.0, 2: 2.0})
    again = shelf(MemoryRun(), limit=1)
    again.restore(tmp_path)
    fill(again, tmp_path, {3: 1.0})
    assert steps(tmp_path) == [3]


def test_the_mark_holds_what_restore_needs(tmp_path):
    fill(shelf(MemoryRun()), tmp_path, {5: 1.5})
    assert (tmp_path / "checkpoint-5" / COMPLETE).stat().st_mtime >= (tmp_path / "checkpoint-5" / "config.json").stat().st_mtime
    (found,) = whole(tmp_path)
    assert (found.step, found.folder) == (5, tmp_path / "checkpoint-5")
