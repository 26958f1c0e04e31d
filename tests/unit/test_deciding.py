"""Which number decides: names that no evaluation gives are found before the training, those that one gives pass."""

from __future__ import annotations

import pytest

from mlops_llm.errors import UserError
from mlops_llm.record import MemoryRun
from mlops_llm.train import deciding
from mlops_llm.train.algorithms.distill import Distill
from mlops_llm.train.algorithms.dpo import DPO
from mlops_llm.train.algorithms.grpo import GRPO
from mlops_llm.train.algorithms.kto import KTO
from mlops_llm.train.algorithms.ppo import PPO
from mlops_llm.train.algorithms.reward import Reward
from mlops_llm.train.algorithms.rloo import RLOO
from mlops_llm.train.algorithms.sft import SFT
from mlops_llm.train.checkpoints import Shelf
from mlops_llm.train.config import Best, Mode, Train, Trainer
from mlops_llm.train.ema import Ema
from mlops_llm.train.evaluate import Evaluate
from mlops_llm.train.rewards.accuracy import Accuracy
from mlops_llm.train.rewards.format import Format
from mlops_llm.train.samplers.hf import Hf
from mlops_llm.train.samplers.vllm import Vllm

REWARDED = (GRPO(), RLOO(), PPO())


def settings(algo, metric, **more):
    rewards = {"accuracy": Accuracy(), "format": Format()} if algo.rewarded else {}
    return Train(algo=algo, best=Best(metric), **{"reward": rewards, "rollout": Hf(), **more})


@pytest.mark.parametrize(
    ("evaluate", "best", "said"),
    [
        ({}, "score/bleu", "no evaluation gives 'score/bleu', since no answers are scored; score them: evaluate.every=50"),
        ({"every": 0}, "score/bleu", "since no answers are scored"),
        ({"every": 50}, "score/blue", r"'score/blue' \(did you mean score/bleu\?\); one of: score/bleu, score/rouge_1"),
        ({"every": 50, "metric": ["rouge"]}, "score/bleu", "one of: score/rouge_1, score/rouge_2, score/rouge_l"),
        ({"every": 30}, "score/bleu", "30 does not divide trainer.save_steps=100; take evaluate.every=25"),
        ({"every": 300}, "score/rouge_l", "take evaluate.every=100, or change trainer.save_steps"),
    ],
)
def test_a_deciding_score_must_be_there_for_every_checkpoint(evaluate, best, said):
    settings = Train(algo=SFT(), best=Best(best), evaluate=Evaluate(**evaluate), trainer=Trainer(save_steps=100))
    with pytest.raises(UserError, match=said):
        deciding.check(settings)


def test_what_decides_otherwise_asks_nothing_of_the_steps():
    settings = Train(algo=SFT(), best=Best("eval/loss"), evaluate=Evaluate(every=30), trainer=Trainer(save_steps=100))
    deciding.check(settings)
    settings = Train(algo=SFT(), best=Best("score/bleu"), evaluate=Evaluate(every=25), trainer=Trainer(save_steps=100))
    deciding.check(settings)
    assert settings.best.mode is Mode.max


def test_the_nearest_divisor():
    assert [deciding.nearest(number, 60) for number in (1, 7, 11, 25, 45, 999)] == [1, 6, 12, 30, 60, 60]


@pytest.mark.parametrize(
    ("algo", "metric", "near"),
    [
        (SFT(), "eval/losss", "eval/loss"),
        (SFT(), "loss", "eval/loss"),
        (SFT(), "train/loss", "eval/loss"),
        (DPO(), "eval/rewards/accuracy", "eval/rewards/accuracies"),
        (KTO(), "eval/rewards/margin", "eval/rewards/margins"),
        (Reward(), "eval/accuracies", "eval/accuracy"),
        (Distill(), "eval/entropy", ""),
        (GRPO(), "eval/rewards", "eval/reward"),
        (GRPO(), "eval/rewards/acuracy/mean", "eval/rewards/accuracy/mean"),
        *((algo, "eval/loss", "eval/") for algo in REWARDED),
        (PPO(), "train/ppo/kl", ""),
    ],
)
def test_a_name_that_no_evaluation_gives_is_refused_with_its_neighbour(algo, metric, near):
    with pytest.raises(UserError, match=f"^best.metric: no evaluation gives '{metric}'.*; one of: eval/") as caught:
        deciding.check(settings(algo, metric))
    assert f"(did you mean {near}" in str(caught.value) or not near


def test_averages_decide_by_the_name_that_the_weights_have():
    averaged = {"ema": Ema(decay=0.9), "evaluate": Evaluate(every=50)}
    for metric in ("eval/loss", "score/bleu"):
        deciding.check(settings(SFT(), metric, **averaged))
        with pytest.raises(UserError, match=rf"'ema/{metric}' \(did you mean {metric}\?\)"):
            deciding.check(settings(SFT(), f"ema/{metric}", **averaged))


@pytest.mark.parametrize("algo", [SFT(), Distill(), DPO(), KTO(), Reward(), *REWARDED], ids=lambda algo: type(algo).__name__)
def test_what_the_closing_table_shows_may_decide_and_no_name_is_given_twice(algo):
    named = settings(algo, algo.best_metric)
    names = algo.evaluated(named)
    assert names[0] == algo.best_metric and len(set(names)) == len(names)
    assert set(algo.telling) - {"eval/kl"} <= set(names)
    for name in names:
        deciding.check(settings(algo, name))


def test_what_depends_on_the_settings_decides_only_with_them():
    for algo in (GRPO(), RLOO(beta=0), PPO()):
        with pytest.raises(UserError, match="no evaluation gives 'eval/kl'"):
            deciding.check(settings(algo, "eval/kl"))
    deciding.check(settings(GRPO(beta=0.1), "eval/kl"))
    deciding.check(settings(RLOO(), "eval/kl"))
    with pytest.raises(UserError, match="no evaluation gives 'eval/reward_accuracy'"):
        deciding.check(settings(GRPO(), "eval/reward_accuracy", reward={"format": Format()}))
    corrected = "eval/sampling/importance_sampling_ratio/mean"
    deciding.check(settings(PPO(), corrected, rollout=Vllm()))
    for algo, rollout in ((PPO(), Hf()), (RLOO(), Vllm())):
        with pytest.raises(UserError, match=f"no evaluation gives '{corrected}'"):
            deciding.check(settings(algo, corrected, rollout=rollout))


def test_what_only_the_loaded_model_tells_is_left_to_the_first_evaluation():
    deciding.check(settings(SFT(), "eval/aux_loss"))
    shelf = Shelf(MemoryRun(), Best("eval/aux_loss"), None, {}, {})
    shelf.check({"eval/loss": 1.0, "eval/aux_loss": 0.1})
    with pytest.raises(UserError, match=r"'eval/aux_loss' \(did you mean eval/loss\?\); one of: eval/entropy, eval/loss$"):
        shelf.check({"eval/loss": 1.0, "eval/entropy": 0.1})
