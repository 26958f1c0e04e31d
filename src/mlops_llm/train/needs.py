"""What a training needs, from its settings and the lengths of its sequences: memory, time, disk.

Crude formulas: they count what grows with the model and the batch. What they miss on a machine, its own earlier runs tell
(`train.history`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_llm.models.load import Files, Task, dtype_of

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.distributed import Numbers
    from mlops_llm.train.machine import Machine

_STATE = 30_000
"""Bytes of a checkpoint's state of schedule, random numbers and loop."""


@dataclass(frozen=True)
class Held:
    """A model, or what is as large as one, in memory besides the model that is trained."""

    name: str
    parameters: int
    ref: str = ""
    """What the user calls it; empty where it comes of itself."""
    bytes_each: int = 4
    trained: bool = False
    """Trained in float32, with gradients and AdamW of its own, and kept in each checkpoint."""
    passes: float = 1.0
    """Forward passes for each one in which the model is trained."""
    aside: bool = False
    """Only there while no step runs: before the first one, or after the last."""
    saved: int = 0
    """Bytes in each checkpoint; of what is trained, its weights and moments."""
    written: int = 0
    """Bytes that are written once, for each learned token of the training rows."""

    @property
    def bytes(self) -> int:
        """Its memory: weights, and where it is trained gradients and two moments."""
        return self.parameters * (16 if self.trained else self.bytes_each)


@dataclass(frozen=True)
class Rollout:
    """A round of sampling."""

    answers: int
    generations: int
    """Of them to each row that is asked."""
    tokens: int
    """Most tokens of an answer."""
    steps: float
    """Optimizer steps that learn from a round."""
    evaluated: int = 1
    """Answers to each held-out row in an evaluation."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder that memory depends on."""

    hidden: int
    layers: int
    inner: int
    """Width of the feed-forward part."""
    keys: int
    """Numbers that a layer keeps of each token for attention: its key and its value."""
    vocabulary: int

    @staticmethod
    def of(config: dict[str, Any]) -> Shape:
        """Read the sizes from a config.json; names are those of most architectures, or of GPT-2."""
        config = config.get("text_config", config)
        hidden = int(config.get("hidden_size") or config.get("n_embd") or 0)
        heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
        width = int(config.get("head_dim") or hidden // heads)
        return Shape(
            hidden,
            int(config.get("num_hidden_layers") or config.get("n_layer") or 0),
            int(config.get("intermediate_size") or 4 * hidden),
            2 * int(config.get("num_key_value_heads") or heads) * width,
            int(config.get("vocab_size") or 0),
        )

    @property
    def kept(self) -> int:
        """Numbers that a layer keeps of each token for the backward pass.

        Of a Llama-like one: nine of the hidden width (both norms' inputs and outputs, query, attention's result and its
        projection's input), key and value, and four of the inner width (gate, its activation, up, their product).
        """
        return 9 * self.hidden + self.keys + 4 * self.inner


@dataclass(frozen=True)
class Rows:
    """Lengths in tokens of the sequences of an optimizer's rows, and how many rows are held out."""

    lengths: Sequence[int]
    held_out: int = 0

    @property
    def longest(self) -> int:
        """The longest one."""
        return max(self.lengths)

    def padded(self, batch: int) -> float:
        """Expected length of the longest one of a batch drawn with replacement, to which all of it are padded."""
        lengths, count = sorted(self.lengths), len(self.lengths)
        return sum(length * (((place + 1) / count) ** batch - (place / count) ** batch) for place, length in enumerate(lengths))

    def steps(self, settings: Train) -> int:
        """Optimizer steps of the training."""
        trainer, processes = settings.trainer, int(settings.distributed.count)
        if trainer.max_steps > 0:
            return trainer.max_steps
        rollout: Rollout | None = settings.algo.rollout(trainer)
        if rollout:
            asked = max(1, rollout.answers * processes // rollout.generations)
            rounds = max(1, len(self.lengths) // asked)
            return math.ceil(rounds * rollout.steps * trainer.epochs)
        batches = math.ceil(len(self.lengths) / (trainer.batch_size * processes))
        return math.ceil(math.ceil(batches / trainer.gradient_accumulation_steps) * trainer.epochs)


def number_bytes(settings: Train) -> int:
    """Bytes of a number of the model's weights as they are loaded (float16 trains float32 weights)."""
    return 2 if dtype_of(settings.model_load.dtype).name == "bfloat16" else 4


def average(settings: Train, files: Files, texts: int) -> list[Held]:
    """The average of the weights, in float32; each checkpoint has it twice, as the state and as a model of its own."""
    if settings.ema.decay is None:
        return []
    trained = settings.peft.trained(files)
    return [Held("average", trained, passes=0, saved=trained * (4 + number_bytes(settings)) + texts)]


def memory(settings: Train, files: Files, rows: Rows, held: Sequence[Held], machine: Machine) -> dict[str, int]:
    """Bytes of memory at the peak, by what takes them; the last entry, `activations`, is what a smaller batch lowers.

    Args:
        settings: of the training.
        files: the start model.
        rows: its rows.
        held: models besides.
        machine: where it trains.
    """
    each, trained = number_bytes(settings), settings.peft.trained(files)
    numbers, counted = _numbers(settings), 0 if settings.peft.trains_adapter else each
    parts = {
        "process": machine.base + (machine.sampler if settings.algo.rollout(settings.trainer) else 0),
        "model": settings.peft.weights(files, each) + trained * (numbers.weights - counted),
        "gradients and optimizer": trained * (numbers.gradients + numbers.moments),
        "engine": _engine(settings, files, each, machine),
        **{one.name: one.bytes for one in held if not one.aside},
    }
    aside = {one.name: one.bytes for one in held if one.aside}
    work = max(_learning(settings, files, rows, each, held), _sampling(settings, files, rows, each))
    return {**parts, **aside, "activations": max(0, work - sum(aside.values()))}


def _numbers(settings: Train) -> Numbers:
    """Bytes of a number that is trained; PEFT keeps adapters in float32."""
    numbers: Numbers = settings.distributed.numbers(4 if settings.peft.trains_adapter else number_bytes(settings))
    return numbers


def _engine(settings: Train, files: Files, each: int, machine: Machine) -> int:
    """What samples the answers, where that is not the model itself; a notebook may leave it out."""
    if settings.rollout == "???" or not settings.algo.rollout(settings.trainer):
        return 0
    return int(settings.rollout.memory(files.parameters * each, machine.memory))


def _learning(settings: Train, files: Files, rows: Rows, each: int, held: Sequence[Held]) -> int:
    """Activations of a forward pass that the backward pass needs, and logits; those of a second trained model come on top.

    Logits are there four times: as they are, as log-probabilities, and the gradients of both. A second trained model is one of
    the same shape with one output: a critic, which learns while the first one's activations wait.
    """
    shape, batch = Shape.of(files.config), settings.trainer.batch_size
    rollout = settings.algo.rollout(settings.trainer)
    kept, scored = shape.layers * shape.kept, rollout.tokens if rollout else rows.longest
    if settings.algo.task is Task.reward:
        scored = 0  # its head has one output
    if settings.trainer.gradient_checkpointing:
        kept = shape.layers * shape.hidden + shape.kept
    second = 4 * sum(one.trained for one in held)
    return int(batch * (rows.longest * kept * (each + second) + scored * shape.vocabulary * (2 * each + 8)))


def _sampling(settings: Train, files: Files, rows: Rows, each: int) -> int:
    """Keys and values of all answers of a round, and the logits of one token of each."""
    rollout = settings.algo.rollout(settings.trainer)
    if rollout is None:
        return 0
    shape = Shape.of(files.config)
    return int(rollout.answers * (rows.longest * shape.layers * shape.keys * each + shape.vocabulary * (each + 8)))


def seconds(settings: Train, files: Files, rows: Rows, held: Sequence[Held], machine: Machine, done: int = 0) -> float:
    """Time of the steps after `done`, of their evaluations, and of answers that are scored.

    A forward pass takes 2 operations a parameter and token, a backward pass 4, or 2 where the weights stay (Kaplan et al.
    2020, arXiv:2001.08361, section 2.1; without attention), and some time a layer whatever its size.
    """
    trainer, steps = settings.trainer, rows.steps(settings)
    tokens = trainer.batch_size * rows.padded(trainer.batch_size)
    backward = 1.0 if settings.peft.trains_adapter else 2.0
    passes = 1 + backward + (1 if trainer.gradient_checkpointing else 0)
    forward = _forward(files.parameters, tokens, files, machine)
    others = _others(held, tokens, files, machine, 3 if trainer.gradient_checkpointing else 2)
    step = trainer.gradient_accumulation_steps * (passes * forward + others)
    evaluation = math.ceil(rows.held_out / trainer.batch_size) * forward
    rollout = settings.algo.rollout(trainer)
    if rollout:
        share = rollout.answers / trainer.batch_size
        step += (_decoding(rollout.answers, rollout.tokens, files, machine) + share * forward) / rollout.steps
        answers = rows.held_out * rollout.evaluated
        rounds = math.ceil(answers / trainer.batch_size)
        evaluation = rounds * (_decoding(min(answers, trainer.batch_size), rollout.tokens, files, machine) + forward)
    if settings.ema.decay is not None:
        evaluation *= 2
    how, scored = settings.evaluate, 0.0
    if how.every:
        scored = _times(steps, done, how.every) * _decoding(how.samples, how.max_new_tokens, files, machine)
    return (steps - done) * (step + machine.step) + _times(steps, done, trainer.eval_steps) * evaluation + scored


def _times(steps: int, done: int, every: int) -> int:
    """Evaluations that are left: one at the start, one after the last step whatever its number."""
    return math.ceil(steps / every) - math.ceil(done / every) + (0 if done else 1)


def _forward(parameters: int, tokens: float, files: Files, machine: Machine) -> float:
    return 2 * parameters * tokens / machine.speed + Shape.of(files.config).layers * machine.layer


def _others(held: Sequence[Held], tokens: float, files: Files, machine: Machine, backward: int) -> float:
    """What models besides take during a forward and backward pass of the trained one; `backward` is in forward passes."""
    return sum(
        (one.passes + (backward if one.trained else 0)) * _forward(one.parameters, tokens, files, machine)
        for one in held
        if not one.aside and one.passes
    )


def _decoding(answers: int, tokens: int, files: Files, machine: Machine) -> float:
    """A forward pass for each token of the longest answer."""
    return tokens * (machine.token + _forward(files.parameters, answers, files, machine))


def checkpoint(settings: Train, files: Files, held: Sequence[Held], texts: int) -> int:
    """Bytes of one checkpoint: what is trained, its optimizer, and the texts that lie with a model (tokenizer)."""
    trained, numbers = int(settings.peft.trained(files)), _numbers(settings)
    return (
        trained * (numbers.weights + numbers.moments)
        + sum(one.parameters * 12 if one.trained else one.saved for one in held)
        + texts
        + _STATE
    )


def kept(settings: Train, steps: int) -> int:
    """How many checkpoints are kept."""
    trainer = settings.trainer
    made = math.ceil(steps / trainer.save_steps)
    return min(made, trainer.save_total_limit + 1) if trainer.save_total_limit else made
