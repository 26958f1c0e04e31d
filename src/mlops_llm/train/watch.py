"""What is looked at while answers are sampled: signs that nothing is learned any more, and the answers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlops_llm import console
from mlops_llm.record import Run
from mlops_llm.train.reward import completion_text

PATIENCE = 3
"""Logged points in a row after which a sign of a dead training is said."""


@dataclass
class Watch:
    """Looks at the numbers of each logged step for signs that nothing is learned any more; each is said once."""

    most: int
    """Tokens at which answers are cut."""
    grouped: bool = True
    """Answers are compared with the others to their prompt; else each with what a critic expects."""
    _seen: dict[str, int] = field(default_factory=dict)

    def look(self, logs: Mapping[str, Any]) -> dict[str, str]:
        """What is to be said now: name of the sign -> what it means, with the remedy."""
        signs = {
            "alike": self._alike(logs),
            "cut": (
                float(logs.get("completions/clipped_ratio") or 0) >= 0.9,
                f"nearly all answers are cut at algo.max_new_tokens={self.most}: raise it, or begin with a model that ends "
                "its answers (SFT first)",
            ),
        }
        said = {}
        for name, (there, words) in signs.items():
            if name == "alike" and "frac_reward_zero_std" not in logs:
                continue
            self._seen[name] = self._seen.get(name, 0) + 1 if there else min(0, self._seen.get(name, 0))
            if self._seen[name] == PATIENCE:
                said[name] = words
                self._seen[name] = -(10**9)
        return said

    def _alike(self, logs: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether rewards tell no answer from another."""
        if self.grouped:
            return float(logs.get("frac_reward_zero_std") or 0) >= 0.95, (
                "nearly all groups get equal rewards, so nothing is learned from them: raise algo.temperature or "
                "algo.generations, or take prompts that are neither too easy nor too hard"
            )
        return float(logs.get("reward_std", 1)) < 1e-6, (
            "all answers get equal rewards, so nothing is learned from them: raise algo.temperature, or take prompts that "
            "are neither too easy nor too hard"
        )


def watcher(trainer: Any, run: Run, watch: Watch, every: int) -> Any:
    """A callback of a TRL trainer that samples: tables of answers every some steps, and signs of death."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._watch, self._last = watch, 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._last = state.global_step

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            logs = logs or {}
            if not state.is_world_process_zero or "reward" not in logs:
                return
            for sign, words in self._watch.look(logs).items():
                console.warn(words)
                run.tags({f"warning.{sign}": words})
            if state.global_step // every > self._last // every or not self._last:
                self._last = state.global_step
                run.artifact(f"completions/step-{state.global_step:05d}.json", table(trainer))

    return Watcher()


def table(trainer: Any) -> dict[str, list[Any]]:
    """The answers that a TRL trainer sampled last, with their rewards and advantages, as columns."""
    logs = trainer._logs
    columns: dict[str, list[Any]] = {
        "prompt": [str(each if isinstance(each, str) else each[-1]["content"]) for each in logs["prompt"]],
        "completion": [completion_text(each) for each in logs["completion"]],
    }
    columns |= {f"reward {name}": [_rounded(each) for each in values] for name, values in logs["rewards"].items()}
    columns["advantage"] = [_rounded(each) for each in logs["advantages"]]
    least = min(len(values) for values in columns.values())
    return {name: values[-least:] for name, values in columns.items()}


def _rounded(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
