"""Prompts, rewards and rounds of methods that sample."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.train import prompts, rewarding, rollouts, rounds
from mlops_llm.train.algorithms.grpo import GRPO
from mlops_llm.train.algorithms.ppo import PPO
from mlops_llm.train.config import Train, Trainer
from mlops_llm.train.distributed import Distributed
from mlops_llm.train.peft import Full
from mlops_llm.train.samplers.hf import Hf
from mlops_llm.train.sharing.ddp import Replicated
from mlops_llm.train.watch import Watch


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokens.tokenizer("tiny")


def source(rows: list[dict[str, Any]]) -> Source:
    return Source("rows", Path("rows.jsonl"), "rows.jsonl", rows, list(range(1, len(rows) + 1)), "")


class Even:
    """1 for an even solution, None for one below 0, and a failure at 13; rows without solution cannot be rewarded."""

    weight = 1.0

    def check(self, rows):
        return [None if "solution" in row else "has no solution" for row in rows]

    def score(self, answers):
        if any(row["solution"] == "13" for row in answers.rows):
            raise ZeroDivisionError("thirteen")
        return [None if int(row["solution"]) < 0 else float(int(row["solution"]) % 2 == 0) for row in answers.rows]


def test_prompts_end_with_the_mark_after_which_the_model_answers(tokenizer):
    rows = [{"prompt": "1+1", "solution": "2"}, {"prompt": "长" * 90, "solution": "2"}]
    (one,) = prompts.prompts(tokenizer, source(rows), [0, 1], (Kind.grpo,), 40)
    assert tokenizer.decode(one.ids).endswith("<|im_start|>assistant\n") and one.row == rows[0] and one.trained == 0
    with pytest.raises(UserError, match="every prompt is longer than 5 tokens"):
        prompts.prompts(tokenizer, source(rows), [0, 1], (Kind.grpo,), 5)


def test_rows_that_cannot_be_rewarded_are_left_out_and_said(tokenizer, capsys):
    rows = [{"prompt": "1+1", "solution": "2"}, {"prompt": "在吗"}]
    found = prompts.prompts(tokenizer, source(rows), [0, 1], (Kind.grpo, Kind.ppo), 40)
    assert [one.row for one in rewarding.rewardable({"even": Even()}, found, "rows.jsonl")] == rows[:1]
    assert "rows.jsonl: 1 rows are left out, since they cannot be rewarded (the first: even: has no solution)" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"no row can be rewarded \(even: has no solution\)"):
        rewarding.rewardable({"even": Even()}, found[1:], "rows.jsonl")


def scored(*given: str, name: str = "even") -> tuple[list, dict]:
    logged: dict[str, float] = {}
    (score,) = rewarding.functions({name: Even()})
    rows = [json.dumps({"solution": each}) for each in given]
    answers = [[{"role": "assistant", "content": "x"}]] * len(rows)
    return score(
        prompts=[[]] * len(rows), completions=answers, row=rows, log_metric=logged.__setitem__, completion_ids=[]
    ), logged


def test_scores_keep_their_order_and_what_cannot_be_told():
    assert scored("2", "-1", "3") == ([1.0, None, 0.0], {})
    assert scored("2", "-1", "3", name="accuracy")[1] == {"reward_accuracy": 0.5}


def test_a_reward_that_fails_names_the_row_and_the_last_line():
    with pytest.raises(UserError) as caught:
        scored("2", "13")
    assert str(caught.value).startswith(
        'reward.even: the reward \'even\' fails at row {"solution": "13"} (ZeroDivisionError: thirteen)'
    )


BOTH = "take trainer.batch_size=8 or trainer.batch_size=16"


def test_an_answer_has_all_rewards_that_count_or_none():
    nan = math.nan
    found = torch.tensor([[1.0, 0.5, nan], [nan, 0.5, 1.0], [1.0, nan, nan], [nan, nan, nan]])
    told = rewarding.wholly_known(found, torch.tensor([1.0, 0.5, 0.0]))
    assert told[0, :2].tolist() == [1.0, 0.5] and bool(told[1:].isnan().all())


@pytest.mark.parametrize(("answers", "said"), [(10, BOTH), (3, "take trainer.batch_size=8"), (8, ""), (64, "")])
def test_rounds_are_whole_groups(answers, said):
    try:
        rollouts.check_group(answers, 8)
    except UserError as error:
        assert said and said in error.remedy
    else:
        assert not said


def sampling(generations: int, processes: int = 1, **trainer: Any) -> Train:
    how = Replicated(processes) if processes > 1 else Distributed()
    return Train(dataset="x", algo=GRPO(generations=generations), distributed=how, trainer=Trainer(**trainer))


@pytest.mark.parametrize(
    ("settings", "prompts", "needed", "batch"),
    [
        (sampling(8, batch_size=64), 6, 8, 48),
        (sampling(2, batch_size=8, gradient_accumulation_steps=2), 7, 8, 7),
        (sampling(8, 2, batch_size=16), 3, 4, 12),
        (sampling(3, 2, batch_size=6), 3, 4, 3),
        (sampling(8, batch_size=8, gradient_accumulation_steps=16), 1, 16, None),
    ],
)
def test_there_are_prompts_enough_for_a_round(settings, prompts, needed, batch):
    rounds.check_round(settings, needed)
    with pytest.raises(UserError, match=f"a round of sampling asks {needed} prompts, and there are {prompts}") as caught:
        rounds.check_round(settings, prompts)
    if batch is None:
        assert "algo.steps_per_generation" in caught.value.remedy
        return
    assert f"take trainer.batch_size={batch}," in caught.value.remedy
    settings = replace(settings, trainer=replace(settings.trainer, batch_size=batch))
    rounds.check_round(settings, prompts)
    count = settings.distributed.count
    rollouts.check_group(settings.algo.rollout(settings.trainer).answers, settings.algo.generations, count)


@pytest.mark.parametrize(
    ("lengths", "answer", "remedy"),
    [
        ([100, 412], 100, None),
        ([100, 413], 100, "take algo.max_new_tokens=99 or leave longer prompts out with algo.max_prompt_tokens=412"),
        ([100, 200], 4000, "take algo.max_new_tokens=312"),
        ([100, 600], 100, "leave longer prompts out with algo.max_prompt_tokens=412"),
        ([600], 100, "take rows with shorter prompts"),
    ],
)
def test_the_model_takes_in_a_prompt_with_its_answer(lengths, answer, remedy):
    found = [rollouts.Prompt([0] * each, [], {}) for each in lengths]
    rounds.check_window(GRPO(max_new_tokens=answer), found, None)
    try:
        rounds.check_window(GRPO(max_new_tokens=answer), found, 512)
    except UserError as error:
        assert error.where == "algo.max_new_tokens" and error.remedy == remedy
    else:
        assert remedy is None


@pytest.mark.parametrize(
    ("every", "cycle", "then"),
    [((20, 20), 1, (20, 20)), ((5, 10), 4, (8, 16)), ((3, 3), 2, (4, 4)), ((50, 100), 8, (56, 112))],
)
def test_saving_moves_to_the_end_of_a_round(every, cycle, then):
    settings = Train(dataset="x", trainer=Trainer(eval_steps=every[0], save_steps=every[1]))
    rollouts.align(settings, cycle)
    moved = (settings.trainer.eval_steps, settings.trainer.save_steps)
    assert moved == then and moved[0] % cycle == 0 and moved[1] % moved[0] == 0


def test_rounds_that_end_within_a_step_are_saved_where_both_end():
    # Three forward passes a round and two a step: every second round ends with every third step.
    trainer = Trainer(batch_size=8, gradient_accumulation_steps=2, eval_steps=2, save_steps=2)
    settings = Train(dataset="x", peft=Full(), rollout=Hf(), trainer=trainer)
    GRPO(generations=8, steps_per_generation=3).check(settings)
    assert (settings.trainer.eval_steps, settings.trainer.save_steps) == (3, 3)


def test_signs_of_death_are_said_once_and_only_when_they_last():
    watch, dead = Watch(24), {"frac_reward_zero_std": 1.0, "completions/clipped_ratio": 0.2}
    assert [bool(watch.look(dead)) for _ in range(6)] == [False, False, True, False, False, False]
    watch = Watch(24)
    assert not any(watch.look(each) for each in [dead, dead, {"frac_reward_zero_std": 0.5}, dead, dead])
    watch = Watch(24)
    cut = {"frac_reward_zero_std": 0.0, "completions/clipped_ratio": 1.0}
    said = [line for _ in range(3) for line in watch.look(cut).items()]
    assert len(said) == 1 and said[0][0] == "cut" and "algo.max_new_tokens=24" in said[0][1]


def test_a_critic_learns_from_equal_groups_and_not_from_equal_answers():
    equal_groups = {"frac_reward_zero_std": 1.0, "reward_std": 0.4}
    watch = Watch(24, PPO.grouped)
    assert not any(watch.look(equal_groups) for _ in range(6))
    said = [line for _ in range(3) for line in watch.look({**equal_groups, "reward_std": 0.0}).items()]
    assert len(said) == 1 and said[0][0] == "alike" and "algo.generations" not in said[0][1]
    watch = Watch(24, GRPO.grouped)
    assert any(watch.look(equal_groups) for _ in range(3))
