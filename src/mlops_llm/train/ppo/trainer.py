"""PPO's trainer: TRL samples, scores and clips the policy; critic, advantages and the divergence in the reward are ours.

Three methods of TRL's GRPOTrainer that are not meant for others are overridden, so that TRL is pinned to a minor version and
`tests/contract` names what is used.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from trl import GRPOTrainer

from mlops_llm.train import ranks
from mlops_llm.train.ppo import estimates
from mlops_llm.train.ppo.critic import FOLDER, Critic
from mlops_llm.train.ppo.estimates import Coefficient
from mlops_llm.train.rewarding import wholly_known

STATE = "coefficient.json"


class Settings(NamedTuple):
    """What the trainer needs besides TRL's own settings."""

    gamma: float
    lam: float
    critic_first: int
    """Optimizer steps in which only the critic learns."""


class PPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Proximal policy optimization with a critic."""

    def __init__(self, critic: Critic, coefficient: Coefficient, how: Settings, **arguments: Any) -> None:
        """Build the trainer; `arguments` are those of TRL's GRPOTrainer."""
        self._critic, self._coefficient, self._how = critic, coefficient, how
        super().__init__(**arguments)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        found = wholly_known(super()._calculate_rewards(*args, **kwargs), self.reward_weights)
        weights = self.reward_weights.to(found.device)
        self._scores = (found * weights).nansum(1)
        self._scored = ~found.isnan().all(1)
        return found

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        out = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return out
        answers = out["completion_mask"].size(0)
        mine = slice(self.accelerator.process_index * answers, (self.accelerator.process_index + 1) * answers)
        # What no reward can be told of is read as any other answer, and no token of it is learned from.
        out["tool_mask"] = out["completion_mask"] * self._scored[mine, None]
        mask = out["tool_mask"].float()
        ids, attention, length = _whole(out)
        with torch.no_grad():
            if out.get("old_per_token_logps") is None:
                out["old_per_token_logps"], *_ = self._get_per_token_logps_and_entropies(
                    self.model, ids, attention, length, batch_size=self.args.per_device_train_batch_size
                )
        # Where the round is one batch, its first lesson begins with these very weights: the critic is asked once for both.
        with torch.set_grad_enabled(self.args.steps_per_generation == 1):
            asked = self._critic.values(ids, attention, length) * mask
        values = asked.detach()
        divergence = (out["old_per_token_logps"] - out["ref_per_token_logps"]) * mask
        rewards = estimates.token_rewards(self._scores[mine], divergence, mask, self._coefficient.value)
        gained = estimates.advantages(rewards, values, mask, self._how.gamma, self._how.lam)
        total, squares, count = self.accelerator.reduce(estimates.moments(gained, mask), "sum")
        mean = total / count.clamp(min=1)
        variance = (squares / count.clamp(min=1) - mean**2).clamp(min=0)
        out |= {"returns": gained + values, "old_values": values}
        if asked.requires_grad:
            out["values"] = asked
        out["advantages"] = estimates.whiten(gained, mask, mean, variance)
        self._tell(out, divergence, mask)
        return out

    def _tell(self, out: Any, divergence: Any, mask: Any) -> None:
        each = self.accelerator.gather(divergence.sum(1))[self._scored]
        values, returns = out["old_values"], out["returns"]
        spreads = torch.stack([estimates.spread(found, mask) for found in (values, returns, returns - values)])
        (value, *_), (_, spread, left) = estimates.pooled(self.accelerator.gather(spreads[None]))
        numbers = {
            "kl": float(each.mean()),
            "kl_coefficient": self._coefficient.value,
            "value_mean": float(value),
            "explained_variance": estimates.explained_variance(left, spread),
        }
        for name, number in numbers.items():
            self._metrics["train"][f"ppo/{name}"].append(number)
        self._coefficient.update(numbers["kl"], each.numel())

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self.beta = 0.0  # the divergence is in the reward
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = self.args.beta
        if not self.model.training:
            return loss
        mask = inputs["tool_mask"].float()
        values = inputs.pop("values", None)  # of this round's beginning: good for one lesson
        error = self._critic.learn(
            self._critic.values(*_whole(inputs)) * mask if values is None else values,
            inputs["old_values"],
            inputs["returns"],
            mask,
            self.current_gradient_accumulation_steps,
            self.accelerator.sync_gradients,
        )
        ((of_critic, of_policy),) = ranks.sums([(error, float(loss.detach()) * self.current_gradient_accumulation_steps)])
        self._metrics["train"]["ppo/value_loss"].append(of_critic / ranks.count())
        self._metrics["train"]["ppo/policy_loss"].append(of_policy / ranks.count())
        # A critic that is broken ends the training as a broken policy does, before either is saved.
        return loss if math.isfinite(error) else loss * math.nan

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Learn from a batch; while the critic alone learns, the policy has no gradient, which weight decay would not spare."""
        loss = super().training_step(model, *args, **kwargs)
        if self.state.global_step < self._how.critic_first:
            model.zero_grad(set_to_none=True)
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._critic.check(self.state.global_step)
        super()._save_checkpoint(model, trial)
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        self._critic.save(folder)
        (folder / FOLDER / STATE).write_text(json.dumps({"value": self._coefficient.value}), "utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._critic.load(Path(checkpoint))
            self._coefficient.value = json.loads((Path(checkpoint) / FOLDER / STATE).read_text("utf-8"))["value"]


def _whole(out: Any) -> tuple[Any, Any, int]:
    """Prompt with answer, their mask, and the number of the answer's tokens."""
    ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
    attention = torch.cat([out["prompt_mask"], out["completion_mask"]], 1)
    return ids, attention, int(out["completion_ids"].size(1))
