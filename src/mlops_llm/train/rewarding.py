"""Rewards as TRL asks for them: which prompts can be rewarded, and what each answer earns."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.train.prompts import Prompt
from mlops_llm.train.reward import Answers, Reward, completion_text


def rewardable(rewards: Mapping[str, Reward], found: Sequence[Prompt], where: str) -> list[Prompt]:
    """The prompts that every reward can score; what keeps the others from it is counted and said.

    Raises:
        UserError: none is left.
    """
    reasons: dict[int, str] = {}
    for name, reward in rewards.items():
        for place, reason in enumerate(reward.check([one.row for one in found])):
            if reason:
                reasons.setdefault(place, f"{name}: {reason}")
    kept = [one for place, one in enumerate(found) if place not in reasons]
    if reasons:
        first = next(iter(reasons.values()))
        if not kept:
            raise UserError(f"no row can be rewarded ({first})", where, "mend the rows, or take another reward=")
        console.warn(f"{where}: {len(reasons)} rows are left out, since they cannot be rewarded (the first: {first})")
    return kept


def functions(rewards: Mapping[str, Reward]) -> list[Callable[..., list[float | None]]]:
    """TRL's reward functions, one of each reward; the mean of `accuracy` is also logged as `reward_accuracy`.

    Their columns: `row`, the dataset's row as JSON.
    """
    return [_function(name, reward) for name, reward in rewards.items()]


def _function(name: str, reward: Reward) -> Callable[..., list[float | None]]:
    def score(
        prompts: Sequence[Any], completions: Sequence[Any], row: Sequence[str], log_metric: Any = None, **_: Any
    ) -> list[float | None]:
        answers = Answers(prompts, [completion_text(each) for each in completions], [json.loads(each) for each in row])
        scores = _scored(name, reward, answers)
        known = [each for each in scores if each is not None]
        if name == "accuracy" and log_metric and known:
            log_metric("reward_accuracy", sum(known) / len(known))
        return scores

    score.__name__ = name
    return score


def _scored(name: str, reward: Reward, answers: Answers) -> list[float | None]:
    """The scores.

    Raises:
        UserError: the reward fails; the row at which it does is named.
    """
    try:
        return reward.score(answers)
    except UserError:
        raise
    except Exception as error:
        said = traceback.format_exception_only(error)[-1].strip()[:200]
        row = next((row for row in _singly(answers) if _fails(reward, row)), None)
        where = f"row {json.dumps(row.rows[0], ensure_ascii=False)[:120]}" if row else "a batch of rows"
        raise UserError(f"the reward '{name}' fails at {where} ({said})", f"reward.{name}", "mend it, or the row") from error


def _singly(answers: Answers) -> list[Answers]:
    parts = zip(answers.prompts, answers.completions, answers.rows, strict=True)
    return [Answers([prompt], [completion], [row]) for prompt, completion, row in parts]


def _fails(reward: Reward, answers: Answers) -> bool:
    try:
        reward.score(answers)
    except Exception:
        return True
    return False


def wholly_known(found: Any, weights: Any) -> Any:
    """Rewards of shape (answers, rewards), in which an answer has all that count or none.

    An answer without one of its rewards would look worse than the others by just this reward, and TRL adds up what is there.

    Args:
        found: the rewards; NaN where one cannot be told.
        weights: factor of each; one of 0 does not count.
    """
    lacks = (found.isnan() & (weights != 0).to(found.device)).any(1)
    return found.masked_fill(lacks[:, None], float("nan"))
