"""What methods share that learn from sampled answers: how these are sampled, in whole rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm import component, console
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.errors import UserError
from mlops_llm.models.load import Files, Task
from mlops_llm.train.algorithm import halved
from mlops_llm.train.config import Train, Trainer
from mlops_llm.train.job import even
from mlops_llm.train.needs import Held, Rollout, number_bytes
from mlops_llm.train.prompts import Prompt, dataset, prompts
from mlops_llm.train.reference import adapted, freeze, refuse_dropout, say_dropout
from mlops_llm.train.rewarding import functions, wholly_known
from mlops_llm.train.watch import Watch, watcher

if TYPE_CHECKING:
    from mlops_llm.train.job import Job

SAMPLER = "what sampled the answers"
"""What the model is compared with, for a person."""
_ENDS = ("mean", "min", "max")
_CLIPPED = ("low_mean", "low_min", "high_mean", "high_max", "region_mean")
_OF_ANSWERS = (
    *(f"eval/completions/{end}_{of}" for of in ("length", "terminated_length") for end in _ENDS),
    "eval/completions/clipped_ratio",
    "eval/entropy",
    *(f"eval/clip_ratio/{of}" for of in _CLIPPED),
)
"""What TRL's evaluations give besides rewards."""


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

    def evaluated(self, settings: Train) -> Sequence[str]:
        """TRL's numbers of rewards and answers; the loss of a policy, which says nothing, is left out."""
        right = ["eval/reward_accuracy"] if "accuracy" in settings.reward else []
        each = [f"eval/rewards/{name}/{number}" for name in settings.reward for number in ("mean", "std")]
        return [self.best_metric, "eval/reward_std", *right, *each, *_OF_ANSWERS]

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
