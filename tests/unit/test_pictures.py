"""Pictures of a training say what they show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlops_llm import component
from mlops_llm.record import Checkpoint, MemoryRun
from mlops_llm.train import closing
from mlops_llm.train.config import PACKAGES

for package in PACKAGES:
    component.load(package)


@pytest.mark.parametrize(
    ("algo", "said", "reward"),
    [
        ("sft", "cross entropy, nats a token", None),
        ("dpo", "preference loss (sigmoid), mean of the pairs", None),
        ("kto", "preference loss (kto), mean of the answers", None),
        ("reward", "-log sigmoid of the scores' difference, mean of the pairs", None),
        ("distill", "training: teacher and labels; held out: cross entropy, nats a token", None),
        ("ppo", "clipped policy loss, around 0", "mean of the answers"),
        ("grpo", "clipped policy loss, around 0", "mean of the answers"),
    ],
)
def test_the_loss_is_called_what_it_is_and_a_reward_has_a_picture_of_its_own(
    algo: str, said: str, reward: str | None, monkeypatch: pytest.MonkeyPatch
):
    best = Checkpoint("checkpoint-4", 4, None, {})
    numbers = {"eval/reward": 0.5} if reward else {"eval/loss": 1.5}
    course = SimpleNamespace(
        plan=SimpleNamespace(settings=SimpleNamespace(algo=component.build("algo", algo))),
        steps=SimpleNamespace(losses={1: 2.0, 2: 1.0}, learning_rates={1: 1.0}, rates={1: 9.0}),
        shelf=SimpleNamespace(best=lambda: best, metrics=lambda each: numbers),
        evaluations={0: numbers, 4: numbers}, averaged={}, rewards={1: 0.1, 2: 0.4} if reward else {}, overfit=None,
    )  # fmt: skip
    run = MemoryRun()
    monkeypatch.setattr(run, "figure", run.artifact)
    closing.pictures(course, run)
    (loss,) = run.artifacts["plots/loss.png"].axes
    assert loss.get_ylabel() == said
    assert ("plots/reward.png" in run.artifacts) == bool(reward)
    (axes,) = run.artifacts["plots/reward.png" if reward else "plots/loss.png"].axes
    curves = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    value = next(iter(numbers.values()))
    assert curves["training"] == ([0.1, 0.4] if reward else [2.0, 1.0])
    assert curves["held out"] == [value, value] and curves["best: step 4"] == [value]
    if reward:
        assert axes.get_ylabel() == reward
