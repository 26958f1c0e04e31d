"""Steps whose loss leaps or is no number, and the rows that are named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlops_llm.data.read import read_path
from mlops_llm.models.template import Encoded
from mlops_llm.record import MemoryRun
from mlops_llm.train.divergence import LEAST, MOST, Divergence, sequences, unusual
from mlops_llm.train.examples import Pair
from mlops_llm.train.plan import Part
from mlops_llm.train.steps import Seen, Step


def learning(seed: int, steps: int, noise: float = 0.15) -> dict[int, float]:
    """Losses of an ordinary training: they fall, with noise in proportion."""
    rng = np.random.default_rng(seed)
    return {step: float((0.4 + 5 * np.exp(-step / 60)) * (1 + noise * rng.standard_normal())) for step in range(1, steps + 1)}


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_training_has_no_leap(seed):
    losses = learning(seed, 300)
    for step in losses:
        assert unusual(step, {each: losses[each] for each in range(1, step + 1)}, 6.0) is None


def test_a_leap_is_told_with_what_is_usual():
    losses = {**learning(0, 200), 201: 4.0}
    found = unusual(201, losses, 6.0)
    assert found and found.finite and found.why.startswith("the loss leaps to 4.0000, where 0.")
    assert unusual(201, losses, 0.0) is None
    few = {step: loss for step, loss in losses.items() if step > 201 - LEAST}
    assert unusual(201, few, 6.0) is None  # too little is known yet


def test_what_is_learned_nearly_all_may_be_many_times_nearly_nothing():
    preferred = {step: 0.7 if step < 5 else 0.001 for step in range(1, 60)}
    assert unusual(60, {**preferred, 60: 0.3}, 6.0) is None
    assert unusual(60, {**preferred, 60: 0.6}, 6.0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_no_number_is_told_at_any_step(loss):
    found = unusual(1, {1: loss}, 0.0)
    assert found and not found.finite and found.why == f"the loss is {loss}"


def test_sequences_are_without_padding_on_either_side_and_unpacked():
    ids = np.array([[7, 8, 0, 0], [0, 5, 6, 9]])
    mask = np.array([[1, 1, 0, 0], [0, 1, 1, 1]])
    assert list(sequences([Seen(ids, mask, None)])) == [(7, 8), (5, 6, 9)]
    packed = Seen(np.array([[7, 8, 5, 6, 9]]), None, np.array([[0, 1, 0, 1, 2]]))
    assert list(sequences([packed])) == [(7, 8), (5, 6, 9)]
    assert list(sequences([Seen(np.array([[7, 8]]), None, None)])) == [(7, 8)]


@pytest.fixture
def part(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{place}", "response": "r"}) + "\n" for place in range(4)))
    # The first row was left out, so that rows and examples do not run side by side.
    encoded = [Encoded([1, place], [-100, place], 0, place) for place in (1, 2, 3)]
    return Part(read_path(file), [0, 1, 2, 3], encoded, "training")


def step(number: int, loss: float) -> Step:
    return Step(number, loss, 1e-4, "", 0)


def test_the_rows_of_a_leap_are_named(part, capsys):
    run, losses = MemoryRun(), {**learning(0, 100), 101: 9.0}
    seen = [Seen(np.array([[1, 3, 0], [1, 1, 0]]), np.array([[1, 1, 0], [1, 1, 0]]), None)]
    watch = Divergence(run, part, 6.0)
    watch.look(step(101, 9.0), losses, seen)
    table = run.artifacts["spikes/step-00101.json"]
    assert table["row"] == ["rows.jsonl line 4", "rows.jsonl line 2"] and table["step"] == [101, 101]
    assert json.loads(table["content"][0]) == {"prompt": "p3", "response": "r"}
    assert "it learned from rows.jsonl line 4, rows.jsonl line 2 (spikes/step-00101.json)" in capsys.readouterr().err
    assert not watch.broken


def test_a_step_of_no_number_ends_it_and_names_its_rows(part):
    run = MemoryRun()
    watch = Divergence(run, part, 6.0)
    watch.look(step(3, float("nan")), {3: float("nan")}, [Seen(np.array([[1, 2]]), None, None)])
    assert watch.broken == "the loss is nan at step 3" and run.kept_tags == {"diverged.step": "3"}
    assert run.artifacts["spikes/step-00003.json"]["row"] == ["rows.jsonl line 3"]
    watch.look(step(4, float("nan")), {4: float("nan")}, [])
    assert len(run.artifacts) == 1


def test_rows_are_named_for_a_bounded_number_of_steps(part):
    run = MemoryRun()
    watch = Divergence(run, part, 1.0)
    usual = learning(0, 100)
    for number in range(101, 101 + 2 * MOST):
        watch.look(step(number, 50.0), {**usual, number: 50.0}, [])
    assert len(run.artifacts) == MOST


def test_weights_that_are_no_numbers_are_found_before_they_are_saved(part):
    import torch

    model, run = torch.nn.Linear(2, 2), MemoryRun()
    watch = Divergence(run, part, 6.0)
    watch.check(5, model)
    assert not watch.broken
    with torch.no_grad():
        model.weight[0, 0] = float("inf")
    watch.check(6, model)
    assert watch.broken == "the weights are no numbers any more after step 6 (weight)"


def test_a_pair_is_seen_as_two_sequences():
    assert Pair([1, 2], [3], [4, 5]).sequences == [[1, 2, 3], [1, 2, 4, 5]]
