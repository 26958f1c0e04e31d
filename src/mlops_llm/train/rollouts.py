"""What methods share that learn from sampled answers: prompts, rewards, whole rounds."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm import component, console
from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind, kind_of, own
from mlops_llm.data.read import Row, Source
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files, Task
from mlops_llm.models.template import IGNORED
from mlops_llm.train.algorithm import halved
from mlops_llm.train.config import Train, Trainer
from mlops_llm.train.job import even
from mlops_llm.train.needs import Held, Rollout, number_bytes
from mlops_llm.train.reference import adapted, freeze, refuse_dropout, say_dropout
from mlops_llm.train.reward import Answers, Reward, completion_text
from mlops_llm.train.watch import Watch, watcher

if TYPE_CHECKING:
    from mlops_llm.train.job import Job

SAMPLER = "what sampled the answers"
"""What the model is compared with, for a person."""


@dataclass(frozen=True)
class Prompt:
    """What is asked; the answers are sampled."""

    ids: list[int]
    turns: list[dict[str, Any]]
    row: Row
    """The row in its kind's own fields."""
    cut: int = 0
    place: int = -1

    @property
    def sequences(self) -> list[list[int]]:
        """The prompt; answers are sampled."""
        return [self.ids]

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
        found.append(Prompt(coded.ids, view.chat.messages, row, coded.cut, place))
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


def dataset(found: Sequence[Prompt]) -> Any:
    """Prompts as TRL wants them, each with its row."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [one.turns for one in found], "row": [json.dumps(one.row) for one in found]})


@dataclass
class Sampled:
    """What every method has that samples answers and learns from what these earn."""

    kinds: ClassVar[tuple[Kind, ...]]
    task: ClassVar[Task] = Task.language
    best_metric: ClassVar[str] = "eval/reward"
    telling: ClassVar[tuple[str, ...]] = ("eval/reward_accuracy", "eval/completions/mean_length", "eval/kl")
    rewarded: ClassVar[bool] = True
    leaves_out: ClassVar[str] = "their prompt is longer than algo.max_prompt_tokens, or they cannot be rewarded"
    distributed: ClassVar[tuple[str, ...]] = ("ddp",)
    grouped: ClassVar[bool] = True
    """An answer is better or worse than the others to its prompt."""

    generations: int = 8
    """Answers to each prompt of a round."""
    max_new_tokens: int = 128
    """Most tokens of an answer."""
    max_prompt_tokens: int = 512
    """Longer prompts are left out and counted."""
    temperature: float = 1.0
    """Temperature of sampling; near 0 all answers to a prompt are alike, and nothing is learned."""
    top_p: float = 1.0
    """Share of the probability that is sampled from."""
    epsilon: float = 0.2
    """The ratio of new to old probability is clipped to 1 - epsilon .. 1 + epsilon."""
    iterations: int = 1
    """Times that sampled answers are learned from."""
    steps_per_generation: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Forward passes that one round of sampling serves; null is trainer.gradient_accumulation_steps."""
    eval_generations: int = 1
    """Answers to each held-out prompt in an evaluation."""
    table_steps: int = 20
    """Steps between two tables of sampled answers with their rewards (completions/)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_new_tokens", "max_prompt_tokens", "iterations", "eval_generations", "table_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"algo.{name}", "give a whole number from 1")
        if self.steps_per_generation is not None and self.steps_per_generation < 1:
            raise UserError(
                f"is {self.steps_per_generation}", "algo.steps_per_generation", "give a whole number from 1, or null"
            )
        if self.generations < 2:
            why = "answers to one prompt are compared with each other" if self.grouped else "TRL samples several to each prompt"
            what = f"is {self.generations}, and {why}"
            raise UserError(what, "algo.generations", "give at least 2")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"is {self.temperature}", "algo.temperature", "give a number above 0: answers must differ")
        if not 0 < self.top_p <= 1:
            raise UserError(f"is {self.top_p}", "algo.top_p", "give a share above 0, at most 1")
        if not 0 < self.epsilon < 1:
            raise UserError(f"is {self.epsilon}", "algo.epsilon", "give a number between 0 and 1")

    @property
    def loss_name(self) -> str:
        """That of a policy, which says nothing of how good it is."""
        return "clipped policy loss, around 0"

    def check(self, settings: Train) -> None:
        """See that rounds of sampling hold whole groups, and move saving to their ends.

        Raises:
            UserError: a round is no multiple of the answers to a prompt, what is to sample cannot run here, dropout is wanted,
                or a leap of the loss looked for.
        """
        refuse_dropout(settings.peft, component.name_of(self), SAMPLER)
        if settings.trainer.spike not in (0, Trainer().spike):
            what = f"is {settings.trainer.spike}, and the loss of a policy moves around 0, so that it cannot leap"
            raise UserError(what, "trainer.spike", "leave it out")
        round = self.rollout(settings.trainer)
        check_group(round.answers, self.generations, settings.distributed.count, round.answers // settings.trainer.batch_size)
        settings.rollout.check(settings)
        passes = round.answers // settings.trainer.batch_size * self.iterations
        accumulated = settings.trainer.gradient_accumulation_steps
        align(settings, math.lcm(passes, accumulated) // accumulated)

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> list[Prompt]:
        """Tokenize the prompts.

        Raises:
            UserError: a row asks nothing, or every prompt is too long.
        """
        return prompts(tokenizer, source, rows, self.kinds, self.max_prompt_tokens)

    def sequences(self, encoded: Sequence[Prompt]) -> list[int]:
        """Most tokens of each prompt with an answer."""
        return [len(one.ids) + self.max_new_tokens for one in encoded]

    def rollout(self, trainer: Trainer) -> Rollout:
        """A round of sampling."""
        passes = self.steps_per_generation or trainer.gradient_accumulation_steps
        answers, steps = trainer.batch_size * passes, passes * self.iterations / trainer.gradient_accumulation_steps
        return Rollout(answers, self.generations, self.max_new_tokens, steps, self.eval_generations)

    def resumed(self, folder: Path) -> None:
        """Nothing to take up."""

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """No model besides."""
        return ()

    def reference(self, settings: Train, files: Files) -> Sequence[Held]:
        """The start model, which TRL loads as the trained one; asked once a round."""
        if settings.peft.trains_adapter:
            return adapted(settings, files, 1 / self.iterations)
        return [Held("reference", files.parameters, bytes_each=number_bytes(settings), passes=1 / self.iterations)]

    def lighter(self) -> Mapping[str, Any]:
        """Nothing to save without loss."""
        return {}

    def shorter(self) -> Mapping[str, Any]:
        """Shorter answers."""
        return halved(self, "max_new_tokens")

    def conclude(self, job: Job) -> dict[str, str]:
        """Nothing to add."""
        return {}

    def settings(self, job: Job) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes, besides the job's own."""
        job.rollout.prepare()
        prompt = max(len(one.ids) for one in (*job.train, *job.validation))
        most, unit = job.arguments["per_device_eval_batch_size"] * job.processes, math.lcm(self.eval_generations, job.processes)
        return {
            **job.rollout.arguments(prompt + self.max_new_tokens),
            "per_device_eval_batch_size": even(len(job.validation) * self.eval_generations, most, unit) // job.processes,
            "num_generations": self.generations,
            "num_generations_eval": self.eval_generations,
            "max_completion_length": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "epsilon": self.epsilon,
            "num_iterations": self.iterations,
            "steps_per_generation": self.steps_per_generation,
            "reward_weights": [reward.weight for reward in job.rewards.values()],
            "disable_dropout": True,
            "remove_unused_columns": False,
        }

    def built(self, job: Job, build: Callable[..., Any]) -> Any:
        """Build a TRL trainer from the job's model, rewards and prompts, held to the start model, its answers written down."""
        folder = Path(job.arguments["output_dir"])
        for reward in job.rewards.values():
            job.run.tags(reward.begin(folder))
        if job.adapter:
            say_dropout(job, SAMPLER)
        made = build(
            model=job.model,
            reward_funcs=functions(job.rewards),
            train_dataset=dataset(job.train),
            eval_dataset=dataset(job.validation) if job.validation else None,
            processing_class=job.tokenizer,
        )
        score = made._calculate_rewards
        made._calculate_rewards = lambda *given, **named: wholly_known(score(*given, **named), made.reward_weights)
        freeze(made, job)
        job.rollout.attach(made)
        made.add_callback(watcher(made, job.run, Watch(self.max_new_tokens, self.grouped), self.table_steps))
        return made


def check_group(answers: int, generations: int, processes: int = 1, passes: int = 1) -> None:
    """See that the answers of one round, over all processes, are whole groups.

    Args:
        answers: of one process.
        generations: in a group.
        processes: that sample.
        passes: batches of a process's round.

    Raises:
        UserError: they are not; the nearest numbers that are, are named.
    """
    if answers * processes % generations:
        unit, batch = generations // math.gcd(generations, processes * passes), answers // passes
        below, above = batch // unit * unit, (batch // unit + 1) * unit
        near = " or ".join(f"trainer.batch_size={each}" for each in (below, above) if each)
        raise UserError(
            f"a round of {answers * processes} answers is no multiple of algo.generations={generations}",
            "trainer.batch_size",
            f"take {near} (it counts answers, not prompts{', of one process' if processes > 1 else ''})",
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
