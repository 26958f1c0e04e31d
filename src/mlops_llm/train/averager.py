"""The average of the weights beside a training: kept, evaluated, published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from mlops_llm.train import random_state
from mlops_llm.train.callbacks import evaluation
from mlops_llm.train.checkpoints import AVERAGED, Shelf
from mlops_llm.train.ema import FILE, PREFIX, Average, Ema
from mlops_llm.train.parting import Parting
from mlops_llm.train.scoring import Scoring


class Averager(TrainerCallback):  # type: ignore[misc]
    """Keeps, evaluates and publishes the average of a Hugging Face Trainer's weights; it comes before what records."""

    def __init__(
        self,
        trainer: Any,
        shelf: Shelf,
        how: Ema,
        complete: Callable[[Path], None],
        scoring: Scoring | None = None,
        parting: Parting | None = None,
    ) -> None:
        """Begin without an average.

        Args:
            trainer: whose model is averaged.
            shelf: publishes `checkpoint-N-ema` beside `checkpoint-N`.
            how: decay and first step.
            complete: called with a checkpoint's folder, to complete its files.
            scoring: scores answers of the average too, whenever that is due.
            parting: says which checkpoint is one to go on from only.
        """
        self._parting = parting or Parting()
        self._trainer, self._shelf, self._how, self._complete, self._scoring = trainer, shelf, how, complete, scoring
        self._average: Average | None = None
        self._unsaved: int | None = None
        """Step of an evaluation that no checkpoint has taken yet: whether one is due may be decided after it."""
        self.evaluations: dict[int, dict[str, float]] = {}
        """Step -> numbers of the average's evaluation."""

    def resume(self, checkpoint: Path) -> None:
        """Go on with the state in a raw checkpoint's folder; none is there before the average has begun."""
        if (checkpoint / FILE).is_file():
            state = torch.load(checkpoint / FILE, weights_only=True, map_location="cpu")
            self._begin()
            self._average.load(state["shadows"])  # type: ignore[union-attr]
            self.evaluations = state["evaluations"]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, where the average is to begin with the start model."""
        if self._average is None and state.global_step >= self._how.start_step:
            self._begin()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write down an evaluation that no checkpoint took."""
        self._note()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the average; score its answers where no evaluation does."""
        if self._average is not None:
            self._average.update()
        elif state.global_step >= self._how.start_step:
            self._begin()
        scored = self._scoring and not control.should_evaluate and self._scoring.due(state.global_step, state.max_steps)
        if self._average and self._scoring and scored:
            with self._average.applied(), random_state.kept():
                self._evaluated(state.global_step, self._scoring.at(state.global_step, AVERAGED))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate the average beside the weights."""
        if self._average is None or not state.global_step:
            return
        with self._average.applied(), random_state.kept(), _unheard(self._trainer), _reloaded(self._trainer):
            found = evaluation(self._trainer.evaluate())
            if self._scoring and self._scoring.due(state.global_step, state.max_steps):
                found |= self._scoring.at(state.global_step, AVERAGED)
        self._evaluated(state.global_step, found)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the average's state into the raw checkpoint, and publish the average."""
        if self._average is None:
            return
        raw = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            shadows = {name: shadow.cpu() for name, shadow in self._average.shadows.items()}
            torch.save({"shadows": shadows, "evaluations": self.evaluations}, raw / FILE)
        if self._parting.aside == state.global_step:
            self._note()
            return
        folder = raw.with_name(raw.name + AVERAGED)
        with self._average.applied():
            self._trainer.save_model(str(folder))
        if state.is_world_process_zero:
            self._complete(folder)
            self._unsaved = None
            self._shelf.add(folder, state.global_step, self.evaluations.get(state.global_step, {}), prefix=PREFIX)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write down an evaluation that no checkpoint took."""
        self._note()

    def _evaluated(self, step: int, found: dict[str, float]) -> None:
        self.evaluations[step] = found
        self._unsaved = step

    def _note(self) -> None:
        if self._unsaved is not None:
            self._shelf.note(self.evaluations[self._unsaved], self._unsaved, prefix=PREFIX)
            self._unsaved = None

    def _begin(self) -> None:
        self._average = Average(self._trainer.model, float(self._how.decay or 0))


@contextmanager
def _reloaded(trainer: Any) -> Iterator[None]:
    """Let a trainer whose answers come from vLLM hand over the weights inside, and those that it has afterwards.

    TRL does so once a step.
    """
    samples = hasattr(trainer, "_last_loaded_step")
    if samples:
        trainer._last_loaded_step = -1
    try:
        yield
    finally:
        if samples:
            trainer._last_loaded_step = -1


@contextmanager
def _unheard(trainer: Any) -> Iterator[None]:
    """An evaluation inside of another one: no other callback hears of it, and the Trainer's own history does not change."""
    heard, entries = trainer.callback_handler.callbacks, len(trainer.state.log_history)
    trainer.callback_handler.callbacks = []
    try:
        yield
    finally:
        trainer.callback_handler.callbacks = heard
        del trainer.state.log_history[entries:]
