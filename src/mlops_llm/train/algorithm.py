"""What a training method is: a component of the group `algo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Source
from mlops_llm.models.load import Files, Task
from mlops_llm.train.needs import Held, Rollout

if TYPE_CHECKING:
    from mlops_llm.train.config import Train, Trainer
    from mlops_llm.train.job import Job


class Algorithm(Protocol):
    """Turns rows into examples and builds the Hugging Face Trainer that learns from them."""

    kinds: ClassVar[tuple[Kind, ...]]
    """Kinds of rows that it learns from; the first is the one it is made for."""
    task: ClassVar[Task]
    """What the model that it trains is for; a reward model may begin as a language model, whose head is then new."""
    best_metric: ClassVar[str]
    """Metric that chooses the best checkpoint where the user names none."""
    telling: ClassVar[tuple[str, ...]]
    """Metrics of the evaluation, besides the deciding one, that the closing table shows."""

    def evaluated(self, settings: Train) -> Sequence[str]:
        """Names in the record of all numbers that its evaluations may give, the deciding one first; see `train.deciding`."""
        ...

    @property
    def loss_name(self) -> str:
        """What its loss is, with the unit, beside the picture of it."""
        ...

    rewarded: ClassVar[bool]
    """It learns from rewards of answers that it samples."""
    leaves_out: ClassVar[str]
    """Why rows are left out, for a person."""
    distributed: ClassVar[tuple[str, ...]]
    """Ways in which several processes can train it: choices of the group `distributed` besides none."""

    def resumed(self, folder: Path) -> None:
        """Take up what a resumed run began with, such as the models that refs stood for then; before `check`."""
        ...

    def check(self, settings: Train) -> None:
        """Check what depends on other settings, before anything is read.

        Raises:
            UserError: they do not fit.
        """
        ...

    def encode(self, tokenizer: Any, source: Source, rows: list[int]) -> Sequence[Any]:
        """Make an example (`train.examples.Example`) of each row; rows of which nothing remains are left out.

        Raises:
            UserError: a row cannot be used, or none remains.
        """
        ...

    def sequences(self, encoded: Sequence[Any]) -> list[int]:
        """Tokens of each sequence that a forward pass sees, under this component's own limits."""
        ...

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """Models in memory besides the one that is trained."""
        ...

    def rollout(self, trainer: Trainer) -> Rollout | None:
        """A round of sampling; None where nothing is sampled."""
        ...

    def lighter(self) -> Mapping[str, Any]:
        """This component with less memory and the same result: the override that says so -> the component."""
        ...

    def shorter(self) -> Mapping[str, Any]:
        """This component on ever shorter sequences: the override that says so -> the component."""
        ...

    def trainer(self, job: Job) -> Any:
        """Build the Trainer."""
        ...

    def conclude(self, job: Job) -> dict[str, str]:
        """Lines of the closing table that only this method can tell; called once, after the last step."""
        ...


def halved(component: Any, name: str, least: int = 16) -> dict[str, Any]:
    """A component with one of its numbers halved again and again: the override that says so -> the component."""
    made, value = {}, getattr(component, name) // 2
    while value >= least:
        made[f"algo.{name}={value}"] = dataclasses.replace(component, **{name: value})
        value //= 2
    return made
