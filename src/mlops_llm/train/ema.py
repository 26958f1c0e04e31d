"""The average of the weights over a training, kept beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from mlops_llm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from mlops_llm.train.checkpoints import Shelf
    from mlops_llm.train.scoring import Scoring

FILE = "ema.pt"
"""State of the averages within the folder of the raw checkpoint."""
PREFIX = "ema/"
"""Before the names of what an evaluation of the averages finds, so that the curves of the raw weights stay their own."""


@dataclass
class Ema:
    """An exponential moving average of the trained weights (Polyak and Juditsky 1992)."""

    decay: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Keep, evaluate and save the average of the weights with this decay a step, such as 0.999; null keeps none."""
    start_step: int = 0
    """Step whose weights the average begins with."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.decay is not None and not 0 < self.decay < 1:
            raise UserError(f"is {self.decay}", "ema.decay", "give a number between 0 and 1, such as 0.999, or null")
        if self.start_step < 0:
            raise UserError(f"is {self.start_step}", "ema.start_step", "give a step from 0")
        if self.start_step and self.decay is None:
            raise UserError("is given, and no average is kept", "ema.start_step", "give ema.decay too, such as 0.999")

    def check(self, steps: int) -> None:
        """See that the average begins before the training ends.

        Raises:
            UserError: it does not.
        """
        if self.decay is not None and self.start_step >= steps:
            what = f"is {self.start_step}, and the training ends at step {steps}"
            raise UserError(what, "ema.start_step", f"give a step below {steps}")


class Average:
    """Float32 shadows of the weights that are trained: s <- decay s + (1 - decay) w after every step."""

    def __init__(self, model: Any, decay: float) -> None:
        """Begin with the weights as they are."""
        self._decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.shadows: dict[str, Tensor] = {name: weight.detach().float().clone() for name, weight in self._weights.items()}

    def update(self) -> None:
        """Move towards the weights as they are now."""
        for name, weight in self._weights.items():
            self.shadows[name].lerp_(weight.detach().float(), 1 - self._decay)

    def load(self, shadows: Mapping[str, Tensor]) -> None:
        """Go on with shadows of an earlier process."""
        for name, shadow in self.shadows.items():
            shadow.copy_(shadows[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages as its weights, in its own number format, and has its own back afterwards."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            self._set(self.shadows)
            yield
        finally:
            self._set(kept)

    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.data.copy_(values[name])


def averager(
    trainer: Any,
    shelf: Shelf,
    how: Ema,
    complete: Callable[[Path], None],
    read: Callable[[Any], dict[str, float]],
    scoring: Scoring | None = None,
) -> Any:
    """A callback of a Hugging Face Trainer that keeps, evaluates and publishes the average; before the one that records.

    Args:
        trainer: whose model is averaged.
        shelf: publishes `checkpoint-N-ema` beside `checkpoint-N`.
        how: decay and first step.
        complete: called with a checkpoint's folder, to complete its files.
        read: the record's numbers in what an evaluation returns.
        scoring: scores answers of the average too, where an evaluation falls on a step at which that is due.
    """
    import torch
    from transformers import TrainerCallback

    from mlops_llm.train import random_state
    from mlops_llm.train.checkpoints import AVERAGED

    class Averager(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
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
            if self._average is None and state.global_step >= how.start_step:
                self._begin()

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._note()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self._average is not None:
                self._average.update()
            elif state.global_step >= how.start_step:
                self._begin()
            if scoring and self._average and not control.should_evaluate and scoring.due(state.global_step, state.max_steps):
                with self._average.applied(), random_state.kept():
                    self._evaluated(state.global_step, scoring.at(state.global_step, AVERAGED))

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self._average is None or not state.global_step:
                return
            with self._average.applied(), random_state.kept(), _unheard(trainer), _reloaded(trainer):
                found = read(trainer.evaluate())
                if scoring and scoring.due(state.global_step, state.max_steps):
                    found |= scoring.at(state.global_step, AVERAGED)
            self._evaluated(state.global_step, found)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self._average is None:
                return
            raw = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            folder = raw.with_name(raw.name + AVERAGED)
            with self._average.applied():
                trainer.save_model(str(folder))
            if state.is_world_process_zero:
                shadows = {name: shadow.cpu() for name, shadow in self._average.shadows.items()}
                torch.save({"shadows": shadows, "evaluations": self.evaluations}, raw / FILE)
                complete(folder)
                self._unsaved = None
                shelf.add(folder, state.global_step, self.evaluations.get(state.global_step, {}), prefix=PREFIX)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._note()

        def _evaluated(self, step: int, found: dict[str, float]) -> None:
            self.evaluations[step] = found
            self._unsaved = step

        def _note(self) -> None:
            if self._unsaved is not None:
                shelf.note(self.evaluations[self._unsaved], self._unsaved, prefix=PREFIX)
                self._unsaved = None

        def _begin(self) -> None:
            self._average = Average(trainer.model, float(how.decay or 0))

    return Averager()


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
