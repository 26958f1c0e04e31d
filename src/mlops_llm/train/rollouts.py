"""What methods share that learn from sampled answers: prompts, rewards, whole rounds, tables, signs of death."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mlops_llm import console
from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind, own
from mlops_llm.data.read import Row, Source
from mlops_llm.errors import UserError
from mlops_llm.models.template import IGNORED
from mlops_llm.record import Run
from mlops_llm.train.config import Train
from mlops_llm.train.examples import kind_of
from mlops_llm.train.reward import Answers, Reward

PATIENCE = 3
"""Logged points in a row after which a sign of a dead training is said."""


@dataclass(frozen=True)
class Prompt:
    """What is asked; the answers are sampled."""

    ids: list[int]
    turns: list[dict[str, Any]]
    row: Row
    """The row in its kind's own fields."""
    cut: int = 0

    @property
    def labels(self) -> list[int]:
        """Nothing of a prompt is learned."""
        return [IGNORED] * len(self.ids)

    @property
    def trained(self) -> int:
        """Nothing of a prompt is learned."""
        return 0


def prompts(tokenizer: Any, source: Source, rows: Sequence[int], kinds: Sequence[Kind], most: int) -> list[Prompt]:
    """Prompts of at most `most` tokens; longer ones are left out, since a cut question is another one.

    Raises:
        UserError: a row asks nothing, or every prompt is too long.
    """
    found = []
    for place in rows:
        where = source.where(place)
        kind = kind_of(source.rows[place], kinds)
        row = own(source.rows[place], kind, where)
        try:
            (view,) = tokens.views(row, kind)
            coded = tokens.encoded(tokenizer, view, most)
        except UserError as error:
            raise UserError(error.what, where, error.remedy) from error
        found.append(Prompt(coded.ids, view.chat.messages, row, coded.cut))
    kept = [one for one in found if not one.cut]
    if found and not kept:
        longest = max(len(one.ids) + one.cut for one in found)
        raise UserError(
            f"every prompt is longer than {most} tokens",
            str(source.path),
            f"raise algo.max_prompt_tokens (the longest has {longest})",
        )
    return kept


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
        answers = Answers(prompts, [_text(each) for each in completions], [json.loads(each) for each in row])
        scores = _scored(name, reward, answers)
        known = [each for each in scores if each is not None]
        if name == "accuracy" and log_metric and known:
            log_metric("reward_accuracy", sum(known) / len(known))
        return scores

    score.__name__ = name
    return score


def _text(completion: Any) -> str:
    """An answer as TRL gives it: a list of one turn, or a text."""
    return completion if isinstance(completion, str) else str(completion[0]["content"])


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


def dataset(found: Sequence[Prompt]) -> Any:
    """Prompts as TRL wants them, each with its row."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [one.turns for one in found], "row": [json.dumps(one.row) for one in found]})


class Sampling(Protocol):
    """The settings that every method has which samples answers."""

    generations: int
    max_new_tokens: int
    max_prompt_tokens: int
    temperature: float
    top_p: float
    iterations: int
    steps_per_generation: int | None
    table_steps: int


def check_sampling(how: Sampling) -> None:
    """Check the ranges.

    Raises:
        UserError: a number is outside of its range.
    """
    for name in ("max_new_tokens", "max_prompt_tokens", "iterations", "table_steps"):
        if getattr(how, name) < 1:
            raise UserError(f"is {getattr(how, name)}", f"algo.{name}", "give a whole number from 1")
    if how.steps_per_generation is not None and how.steps_per_generation < 1:
        raise UserError(f"is {how.steps_per_generation}", "algo.steps_per_generation", "give a whole number from 1, or null")
    if how.generations < 2:
        what = f"is {how.generations}, and answers to one prompt are compared with each other"
        raise UserError(what, "algo.generations", "give at least 2")
    if how.temperature <= 0:
        raise UserError(f"is {how.temperature}", "algo.temperature", "give a number above 0: answers must differ")
    if not 0 < how.top_p <= 1:
        raise UserError(f"is {how.top_p}", "algo.top_p", "give a share above 0, at most 1")


def sampling(how: Sampling) -> dict[str, Any]:
    """The keyword arguments of TRL's config classes."""
    return {
        "num_generations": how.generations,
        "max_completion_length": how.max_new_tokens,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "remove_unused_columns": False,
    }


def check_rounds(how: Sampling, settings: Train) -> None:
    """See that rounds of sampling hold whole groups, and move saving to their ends.

    Raises:
        UserError: a round is no multiple of the answers to a prompt.
    """
    trainer = settings.trainer
    passes = how.steps_per_generation or trainer.gradient_accumulation_steps
    check_group(trainer.batch_size * passes, how.generations)
    align(settings, -(-passes * how.iterations // trainer.gradient_accumulation_steps))


def check_group(answers: int, generations: int) -> None:
    """See that the answers of one round are whole groups.

    Raises:
        UserError: they are not; the nearest numbers that are, are named.
    """
    if answers % generations:
        below, above = answers // generations * generations, (answers // generations + 1) * generations
        near = " or ".join(str(each) for each in (below, above) if each)
        raise UserError(
            f"a round of {answers} answers is no multiple of algo.generations={generations}",
            "trainer.batch_size",
            f"make it {near} answers (trainer.batch_size counts answers, not prompts)",
        )


def align(settings: Train, cycle: int) -> None:
    """Move saving and evaluation to the ends of whole rounds of sampling, so that a resumed run repeats itself.

    Args:
        settings: their `trainer` is changed where it must be.
        cycle: optimizer steps of a round.
    """
    trainer = settings.trainer
    evaluated, saved = (-(-each // cycle) * cycle for each in (trainer.eval_steps, trainer.save_steps))
    saved = -(-saved // evaluated) * evaluated
    if (evaluated, saved) != (trainer.eval_steps, trainer.save_steps):
        console.say(
            f"a round of sampling is {cycle} steps: evaluating every {evaluated} and saving every {saved} steps "
            f"(asked for: {trainer.eval_steps} and {trainer.save_steps})"
        )
        settings.trainer = replace(trainer, eval_steps=evaluated, save_steps=saved)


@dataclass
class Watch:
    """Looks at the numbers of each logged step for signs that nothing is learned any more; each is said once."""

    most: int
    """Tokens at which answers are cut."""
    _seen: dict[str, int] = field(default_factory=dict)

    def look(self, logs: Mapping[str, Any]) -> list[str]:
        """What is to be said now, each with its remedy."""
        signs = {
            "alike": (
                float(logs.get("frac_reward_zero_std") or 0) >= 0.95,
                "nearly all groups get equal rewards, so nothing is learned from them: raise algo.temperature or "
                "algo.generations, or take prompts that are neither too easy nor too hard",
            ),
            "cut": (
                float(logs.get("completions/clipped_ratio") or 0) >= 0.9,
                f"nearly all answers are cut at algo.max_new_tokens={self.most}: raise it, or begin with a model that ends "
                "its answers (SFT first)",
            ),
        }
        said = []
        for name, (there, words) in signs.items():
            if name in ("alike",) and "frac_reward_zero_std" not in logs:
                continue
            self._seen[name] = self._seen.get(name, 0) + 1 if there else min(0, self._seen.get(name, 0))
            if self._seen[name] == PATIENCE:
                said.append(words)
                self._seen[name] = -(10**9)
        return said


def watcher(trainer: Any, run: Run, most: int, every: int) -> Any:
    """A callback of a TRL trainer that samples: tables of answers every some steps, and signs of death."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._watch, self._last = Watch(most), 0

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            logs = logs or {}
            if not state.is_world_process_zero or "reward" not in logs:
                return
            for words in self._watch.look(logs):
                console.warn(words)
                run.tags({"warning": words})
            if state.global_step >= self._last + every or not self._last:
                self._last = state.global_step
                run.artifact(f"completions/step-{state.global_step:05d}.json", table(trainer))

    return Watcher()


def table(trainer: Any) -> dict[str, list[Any]]:
    """The answers that a TRL trainer sampled last, with their rewards and advantages, as columns."""
    logs = trainer._logs
    columns: dict[str, list[Any]] = {
        "prompt": [str(each if isinstance(each, str) else each[-1]["content"]) for each in logs["prompt"]],
        "completion": [_text(each) for each in logs["completion"]],
    }
    columns |= {f"reward {name}": [_rounded(each) for each in values] for name, values in logs["rewards"].items()}
    columns["advantage"] = [_rounded(each) for each in logs["advantages"]]
    least = min(len(values) for values in columns.values())
    return {name: values[-least:] for name, values in columns.items()}


def _rounded(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
