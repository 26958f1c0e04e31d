"""PPO's formulas against plain loops over numbers, as the papers write them."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.train.ppo import estimates
from mlops_llm.train.ppo.estimates import Coefficient

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def made(lengths: list[int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random rewards and values, and the mask of answers of these lengths."""
    draw = np.random.default_rng(seed)
    shape = (len(lengths), 5)
    mask = (np.arange(5)[None] < np.array(lengths)[:, None]).astype(float)
    return draw.normal(size=shape), draw.normal(size=shape), mask


@given(LENGTHS, st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_the_discounted_sum_of_the_errors(lengths, seed, gamma, lam):
    """Schulman et al. 2015, equation 16: A_t = sum over l of (gamma lam)^l delta_(t+l)."""
    rewards, values, mask = made(lengths, seed)
    wanted = np.zeros_like(rewards)
    for row, length in enumerate(lengths):
        deltas = [
            rewards[row, t] + gamma * (values[row, t + 1] if t + 1 < length else 0.0) - values[row, t] for t in range(length)
        ]
        for t in range(length):
            wanted[row, t] = sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, length))
    found = estimates.advantages(*map(torch.tensor, (rewards, values, mask)), gamma, lam)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_with_lambda_1_returns_are_the_rewards_to_come():
    rewards, values, mask = made([5, 3], 0)
    gained = estimates.advantages(*map(torch.tensor, (rewards, values, mask)), 1.0, 1.0).numpy()
    to_come = np.cumsum((rewards * mask)[:, ::-1], 1)[:, ::-1] * mask
    np.testing.assert_allclose((gained + values) * mask, to_come, atol=1e-12)


@given(LENGTHS, st.integers(0, 99))
def test_the_score_falls_on_the_last_token_and_the_divergence_on_each(lengths, seed):
    divergence, _, mask = made(lengths, seed)
    scores = np.arange(1.0, len(lengths) + 1)
    found = estimates.token_rewards(torch.tensor(scores), torch.tensor(divergence), torch.tensor(mask), 0.3).numpy()
    for row, length in enumerate(lengths):
        wanted = [-0.3 * divergence[row, t] + (scores[row] if t == length - 1 else 0) for t in range(length)]
        np.testing.assert_allclose(found[row], [*wanted, *[0.0] * (5 - length)], atol=1e-12)


def test_whitened_advantages_have_mean_0_and_variance_1():
    values, _, mask = (torch.tensor(each) for each in made([5, 2, 4], 3))
    total, squares, count = estimates.moments(values, mask)
    mean = total / count
    found = estimates.whiten(values, mask, mean, squares / count - mean**2)[mask.bool()]
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.var(unbiased=False)) == pytest.approx(1, rel=1e-6)


def test_the_critics_loss_takes_the_worse_of_both_values():
    new, old, returns = (torch.tensor([[each]]) for each in (1.0, 0.0, 0.0))
    mask = torch.ones(1, 1)
    assert float(estimates.value_loss(new, old, returns, mask, 0.2)) == pytest.approx(0.5 * 1.0)
    assert float(estimates.value_loss(new, old, torch.tensor([[1.0]]), mask, 0.2)) == pytest.approx(0.5 * 0.8**2)
    assert float(estimates.value_loss(new, old, returns, torch.zeros(1, 1), 0.2)) == 0.0


def explained(*parts: tuple[Any, Any, Any]) -> float:
    """Of values, returns and mask of each process."""
    spreads = [
        torch.stack([estimates.spread(found, mask) for found in (returns, returns - values)]) for values, returns, mask in parts
    ]
    spread, left = estimates.pooled(torch.stack(spreads))[1]
    return estimates.explained_variance(left, spread)


def test_explained_variance():
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 9.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert explained((returns, returns, mask)) == pytest.approx(1.0)
    assert explained((torch.full((1, 4), 2.0), returns, mask)) == pytest.approx(0.0)
    assert math.isnan(explained((returns, torch.ones(1, 4), mask)))
    assert math.isnan(explained((returns, returns, torch.zeros(1, 4))))


def test_explained_variance_of_several_processes_is_that_of_all_their_values():
    """Against NumPy over all masked values; each process has its own length, one has no token at all."""
    draw, parts = np.random.default_rng(7), []
    for answers, tokens, mean in ((2, 5, 0.0), (3, 4, 3.0), (1, 6, -1.0), (2, 3, 9.0)):
        values, returns = (torch.tensor(draw.normal(mean, 1, (answers, tokens)), dtype=torch.float32) for _ in range(2))
        lengths = torch.arange(tokens) < torch.tensor(draw.integers(1, tokens + 1, (answers, 1)))
        parts.append((values, returns, lengths.float() * (mean < 9)))
    values, returns = (np.concatenate([each[place][each[2].bool()].double() for each in parts]) for place in (0, 1))
    assert explained(*parts) == pytest.approx(1 - np.var(returns - values) / np.var(returns), rel=1e-6)
    assert abs(explained(*parts) - explained(parts[0])) > 0.5
    mean, variance = estimates.pooled(torch.stack([estimates.spread(each[0], each[2]) for each in parts]))
    assert (float(mean), float(variance)) == pytest.approx((np.mean(values), np.var(values)), rel=1e-12)
    alike = [(torch.zeros(shape), torch.full(shape, 0.1), torch.ones(shape)) for shape in ((1, 3), (7, 5), (11, 13))]
    assert math.isnan(explained(*alike))


def test_what_the_first_process_tells_is_of_the_values_of_both():
    from mlops_llm.train.ppo.trainer import PPOTrainer

    draw, sent = np.random.default_rng(3), []
    masks = [torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 1.0]])]
    rounds = [
        {name: torch.tensor(draw.normal(2 * rank, 1, mask.shape)) for name in ("old_values", "returns")}
        for rank, mask in enumerate(masks)
    ]

    def sends(each: Any) -> Any:
        sent.append(each)
        return torch.cat([each, each])

    for rank, gather in ((1, sends), (0, lambda each: torch.cat([each, sent.pop(0)]))):
        trainer = object.__new__(PPOTrainer)
        trainer.accelerator, trainer._scored = SimpleNamespace(gather=gather), torch.tensor([True, True])
        trainer._coefficient, trainer._metrics = Coefficient(0.1), {"train": defaultdict(list)}
        trainer._tell(rounds[rank], torch.full(masks[rank].shape, 1.0 + rank), masks[rank])
    told = {name: value for name, (value,) in trainer._metrics["train"].items()}
    values, returns = (
        np.concatenate([each[name][mask.bool()] for each, mask in zip(rounds, masks, strict=True)])
        for name in ("old_values", "returns")
    )
    assert told["ppo/explained_variance"] == pytest.approx(1 - np.var(returns - values) / np.var(returns), rel=1e-12)
    assert (told["ppo/value_mean"], told["ppo/kl"]) == pytest.approx((np.mean(values), (3 + 8) / 2))


def test_the_coefficient_moves_towards_the_wanted_divergence_by_a_fifth_at_most():
    """Ziegler et al. 2019: e = clip(KL / target - 1, -0.2, 0.2), beta <- beta (1 + e n / horizon)."""
    fixed, moved = Coefficient(0.1), Coefficient(0.1, target=2.0, horizon=100)
    fixed.update(100.0, 50)
    assert fixed.value == 0.1
    moved.update(100.0, 50)
    assert moved.value == pytest.approx(0.1 * 1.1)
    moved.update(2.2, 50)
    assert moved.value == pytest.approx(0.1 * 1.1 * 1.05)
    moved.update(0.0, 100)
    assert moved.value == pytest.approx(0.1 * 1.1 * 1.05 * 0.8)


def round_of(chosen: list[int], rewards: list[float], monkeypatch: pytest.MonkeyPatch, batches: int = 1) -> SimpleNamespace:
    """What is learned from some of three answers, sampled and scored by stand-ins, with TRL's own loss.

    Args:
        chosen: which answers there are.
        rewards: of each of the three.
        monkeypatch: of the test.
        batches: in which a round is learned from.
    """
    from mlops_llm.train.ppo.trainer import GRPOTrainer, PPOTrainer, Settings

    draw = np.random.default_rng(0)
    now, old, reference, values = (torch.tensor(draw.normal(size=(3, 4)) / 4, dtype=torch.float32)[chosen] for _ in range(4))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])[chosen]
    out = {"prompt_ids": mask, "prompt_mask": mask, "completion_ids": mask, "completion_mask": mask}
    out |= {"old_per_token_logps": old, "ref_per_token_logps": reference}
    found = torch.tensor(rewards)[chosen, None]
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self: found)
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", lambda self, _: (self._calculate_rewards(), {**out})[1])
    critic_losses, asked = [], []

    def ask(*_: Any) -> Any:
        asked.append(values.clone().requires_grad_(torch.is_grad_enabled()))
        return asked[-1]

    def learn(new: Any, old: Any, returns: Any, mask: Any, parts: int, last: bool) -> float:
        assert new.requires_grad and not old.requires_grad and not returns.requires_grad
        critic_losses.append(float(estimates.value_loss(new.detach(), old, returns, mask, 0.2)))
        return critic_losses[-1]

    trainer = object.__new__(PPOTrainer)
    trainer.accelerator = SimpleNamespace(
        process_index=0, gather=lambda each: each, reduce=lambda each, *_, **__: each, sync_gradients=True
    )
    trainer.args = SimpleNamespace(beta=1.0, delta=None, per_device_train_batch_size=8, steps_per_generation=batches)
    trainer.state, trainer.model = SimpleNamespace(global_step=0), SimpleNamespace(training=True)
    trainer.reward_weights, trainer._metrics = torch.ones(1), {"train": defaultdict(list)}
    trainer._critic = SimpleNamespace(values=ask, learn=learn)
    trainer._coefficient, trainer._how = Coefficient(0.1, target=0.5, horizon=10), Settings(1.0, 0.95, 0)
    trainer.loss_type, trainer.importance_sampling_level, trainer.epsilon_low, trainer.epsilon_high = "bnpo", "token", 0.2, 0.2
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold, trainer.current_gradient_accumulation_steps = 1.0, None, 1
    trainer.aux_loss_enabled = trainer.use_vllm = trainer._entropy_bonus_enabled = False
    logps = now.clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, now**2, None)
    made = trainer._generate_and_score_completions([])
    loss = trainer._compute_loss(trainer.model, made)
    loss.backward()
    once, gradient, metrics = (
        len(asked),
        logps.grad.clone(),
        {name: [*told] for name, told in trainer._metrics["train"].items()},
    )
    trainer._compute_loss(trainer.model, made)
    return SimpleNamespace(
        loss=float(loss.detach()), critic=critic_losses[:1], gradient=gradient, advantages=made["advantages"],
        coefficient=trainer._coefficient.value, metrics=metrics, asked=(once, len(asked)), again=critic_losses[1],
    )  # fmt: skip


def test_a_round_of_one_batch_asks_the_critic_once_for_its_values_and_its_first_lesson(monkeypatch: pytest.MonkeyPatch):
    one = round_of([0, 1, 2], [1.0, 0.25, -0.5], monkeypatch)
    several = round_of([0, 1, 2], [1.0, 0.25, -0.5], monkeypatch, batches=2)
    assert one.asked == (1, 2) and several.asked == (2, 3)
    assert (one.loss, *one.critic) == (several.loss, *several.critic) and one.critic[0] == one.again


def test_an_answer_without_a_reward_is_not_learned_from(monkeypatch: pytest.MonkeyPatch):
    skipped = round_of([0, 1, 2], [1.0, math.nan, -0.5], monkeypatch)
    alone = round_of([0, 2], [1.0, math.nan, -0.5], monkeypatch)
    assert skipped.gradient[1].abs().sum() == 0 and skipped.advantages[1].abs().sum() == 0
    torch.testing.assert_close(skipped.gradient[[0, 2]], alone.gradient)
    torch.testing.assert_close(skipped.advantages[[0, 2]], alone.advantages)
    assert (skipped.loss, *skipped.critic, skipped.coefficient) == pytest.approx((alone.loss, *alone.critic, alone.coefficient))
    assert {"ppo/kl", "ppo/value_loss", "ppo/explained_variance", "entropy", "clip_ratio/region_mean"} <= set(alone.metrics)
    for name, values in alone.metrics.items():
        assert skipped.metrics[name] == pytest.approx(values), name
    none = round_of([0, 1, 2], [math.nan] * 3, monkeypatch)
    assert (none.loss, *none.critic, none.coefficient) == (0.0, 0.0, 0.1) and none.gradient.abs().sum() == 0


def test_a_critic_that_recomputes_learns_the_same():
    from transformers import LlamaConfig, LlamaForCausalLM

    from mlops_llm.train.ppo.critic import Critic

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11}
    ids, mask, found = torch.arange(10).view(2, 5), torch.ones(2, 5, dtype=torch.long), []
    for recompute in (False, True):
        torch.manual_seed(0)
        start = LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=0.5)).eval()
        critic, passes = Critic(start, "cpu", 1e-2, 0.2, 0.0, recompute), []
        critic.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        for _ in range(2):  # with its head at 0 the first step moves the head alone
            new = critic.values(ids, mask, 3)
            critic.learn(new, new.detach(), torch.ones(2, 3), torch.ones(2, 3), 1, True)
        found.append((critic.values(ids, mask, 3), sum(passes)))
    (plain, once), (recomputed, twice) = found
    assert torch.equal(plain, recomputed) and plain.std() > 0
    assert (once, twice) == (3, 5)
