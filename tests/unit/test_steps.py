from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
import torch

from mlops_llm.train.steps import Steps


class Trainer:
    """As much of a Hugging Face Trainer as is watched."""

    def __init__(self) -> None:
        self.scale = 1.0

    def _prepare_inputs(self, inputs):
        return inputs

    def training_step(self, model, inputs, items=None):
        return inputs["input_ids"].sum() * self.scale


def run(
    file: Path, last: int, done: int = 0, scale: float = 1.0, lr=lambda step: 1e-3 / step, batch=None, passes: int = 1
) -> Steps:
    """Train from step `done` to `last`; what happens at a step depends on its number alone."""
    steps, trainer = Steps(file, done), Trainer()
    trainer.scale = scale
    steps.watch(trainer)
    for step in range(done + 1, last + 1):
        steps.begin()
        for part in range(passes):
            ids = torch.tensor([[step, part, (batch or {}).get(step, 0)]])
            trainer.training_step(None, {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0]])})
        steps.end(step, lr(step))
    steps.flush()
    return steps


@pytest.fixture
def file(tmp_path):
    return tmp_path / "steps.jsonl"


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_step_is_recorded(file):
    steps = run(file, 3)
    assert [line["step"] for line in lines(file)] == [1, 2, 3]
    assert [line["loss"] for line in lines(file)] == [1.0, 2.0, 3.0]
    assert [line["tokens"] for line in lines(file)] == [2, 4, 6]
    assert steps.losses == {1: 1.0, 2: 2.0, 3: 3.0}
    assert steps.learning_rates == {1: 1e-3, 2: 5e-4, 3: 1e-3 / 3}
    assert steps.tokens == 6
    assert lines(file)[0]["batch"] == hashlib.sha256(torch.tensor([[1, 0, 0]]).numpy().tobytes()).hexdigest()[:16]
    assert len({line["batch"] for line in lines(file)}) == 3


def test_forward_passes_of_a_step_are_added(file):
    assert run(file, 2, passes=3).losses == {1: 1.0 + 2.0 + 3.0, 2: 2.0 + 3.0 + 4.0}
    assert lines(file)[-1]["tokens"] == 12


def test_without_a_mask_all_tokens_count(file):
    steps, trainer = Steps(file), Trainer()
    steps.watch(trainer)
    assert trainer.training_step(None, {"input_ids": torch.ones(2, 5, dtype=torch.long)}) == 10
    steps.end(1, 0.1)
    assert steps.tokens == 10


def test_a_new_run_forgets_the_file(file):
    run(file, 3)
    run(file, 1)
    assert [line["step"] for line in lines(file)] == [1]


class TestResume:
    def test_the_same_steps_again_do_not_differ_and_stand_once(self, file):
        run(file, 7)
        before = lines(file)
        steps = run(file, 9, done=4)
        assert steps.compared == 3
        assert steps.differs == ""
        assert lines(file)[:7] == before
        assert [line["step"] for line in lines(file)] == list(range(1, 10))
        assert steps.tokens == 18
        assert sorted(steps.losses) == list(range(1, 10))

    def test_nothing_is_expected_where_the_process_ended_with_the_checkpoint(self, file):
        run(file, 4)
        steps = run(file, 6, done=4)
        assert (steps.compared, steps.differs) == (0, "")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"scale": 2.0}, "step 5: loss was 5.0, is 10.0"),
            ({"lr": lambda step: 1e-3}, "step 5: lr was 0.0002, is 0.001"),
            ({"batch": {6: 9}}, "step 6: batch was "),
        ],
        ids=["loss", "lr", "batch"],
    )
    def test_the_first_difference_is_named(self, file, change, said):
        run(file, 7)
        steps = run(file, 8, done=4, **change)
        assert steps.differs.startswith(said)
        assert steps.compared == 3

    def test_the_last_bit_counts(self, file):
        run(file, 2, scale=1.0)
        assert run(file, 2, done=1, scale=1.0 + 2**-23).differs

    def test_an_equal_nan_is_no_difference(self, file):
        run(file, 3, scale=float("nan"))
        assert run(file, 3, done=1, scale=float("nan")).differs == ""

    @pytest.mark.parametrize("torn", ['{"step": 8, "loss": 1.', '{"step": 8}\n', '{"step": 8', "\x00\x00"])
    def test_a_torn_last_line_is_not_there(self, file, torn):
        run(file, 7)
        with file.open("a") as handle:
            handle.write(torn)
        steps = run(file, 9, done=4)
        assert steps.compared == 3
        assert steps.differs == ""
        assert [line["step"] for line in lines(file)] == list(range(1, 10))

    def test_a_lost_file_does_not_end_the_training(self, file):
        assert run(file, 7, done=4).mean_loss(10) == 6.0


class TestMeanLoss:
    @pytest.mark.parametrize(
        ("last", "every", "mean"),
        [(1, 10, 1.0), (10, 10, 5.5), (11, 10, 11.0), (20, 10, 15.5), (23, 10, 22.0), (3, 1, 3.0), (5, 3, 4.5)],
    )
    def test_is_of_the_steps_since_the_last_logged_point(self, file, last, every, mean):
        assert run(file, last).mean_loss(every) == mean

    def test_goes_on_over_a_resume(self, file):
        run(file, 6)
        assert run(file, 8, done=5).mean_loss(10) == 4.5


def test_the_rate_is_none_before_the_first_step_and_counts_anew(file):
    steps, trainer = Steps(file), Trainer()
    steps.watch(trainer)
    assert steps.rate() is None
    steps.begin()
    trainer.training_step(None, {"input_ids": torch.ones(1, 4, dtype=torch.long)})
    time.sleep(0.05)  # the optimizer's part of the step
    steps.end(1, 0.1)
    time.sleep(0.05)  # an evaluation is no part of it
    rate = steps.rate()
    assert rate is not None
    assert 0 < rate < 4 / 0.05
    assert steps.rates == {1: rate}
    assert steps.rate() is None


class Sampler(Trainer):
    """A trainer that samples answers: it gets prompts, and learns from tensors."""

    def __init__(self, *answers: list[int]) -> None:
        super().__init__()
        self._answers = list(answers)

    def _prepare_inputs(self, inputs):
        answer = torch.tensor([self._answers.pop(0)])
        prompt = torch.ones(1, 3, dtype=torch.long)
        mask = torch.ones_like(answer)
        return {"prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": answer, "completion_mask": mask}

    def training_step(self, model, inputs, items=None):
        found = self._prepare_inputs(inputs)
        return found["completion_ids"].float().sum()


def test_of_a_trainer_that_samples_the_answers_count(tmp_path):
    batches = []
    for place, answer in enumerate(([5, 6], [5, 7])):
        steps, trainer = Steps(tmp_path / f"{place}.jsonl"), Sampler(answer)
        steps.watch(trainer)
        steps.begin()
        trainer.training_step(None, [{"prompt": "a"}])
        steps.end(1, 0.1)
        steps.flush()
        assert steps.tokens == 5
        batches.append(json.loads((tmp_path / f"{place}.jsonl").read_text())["batch"])
    assert batches[0] != batches[1]


def test_answers_that_an_evaluation_samples_do_not_count(tmp_path):
    steps, trainer = Steps(tmp_path / "steps.jsonl"), Sampler([1, 2])
    steps.watch(trainer)
    trainer._prepare_inputs([{"prompt": "a"}])
    assert steps.tokens == 0
