"""What a reward is: a component of the group `reward` that says how good answers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlops_llm.data.read import Row
from mlops_llm.errors import UserError
from mlops_llm.train.needs import Held


@dataclass(frozen=True)
class Answers:
    """Answers that are to be rewarded together, several of them to one prompt."""

    prompts: Sequence[list[dict[str, Any]]]
    """The turns before each answer."""
    completions: Sequence[str]
    """The answers, without the model's end mark."""
    rows: Sequence[Row]
    """The dataset's row of each answer, with its solution or whatever fields it has."""

    def __len__(self) -> int:
        return len(self.completions)


class Reward(Protocol):
    """Scores answers. Its settings are the component's fields; `weight` is one of every reward."""

    weight: float
    """Factor of this reward in the sum of all."""

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """What keeps each row from being rewarded, before anything is trained; None where nothing does.

        Raises:
            UserError: no row can be, or a setting or the environment does not allow it.
        """
        ...

    def resumed(self, folder: Path) -> None:
        """Take up what a run began with that is resumed in its folder; before `check`."""
        ...

    def begin(self, folder: Path) -> dict[str, str]:
        """Get ready, once before the first step of a run or of its resumption; return what the record is to say as tags.

        Args:
            folder: the run's.

        Raises:
            UserError: a resumed run would be rewarded otherwise than before.
        """
        ...

    def holds(self) -> Sequence[Held]:
        """Models that it keeps in memory; called after `check`."""
        ...

    def score(self, answers: Answers) -> list[float | None]:
        """The reward of each answer; None where it cannot be told, which leaves the row out of this reward.

        Raises:
            UserError: a reward cannot be had at all (a server that refuses).
        """
        ...


class Ready:
    """What every reward has that needs nothing but its settings."""

    def resumed(self, folder: Path) -> None:
        """Nothing to take up."""

    def begin(self, folder: Path) -> dict[str, str]:
        """Nothing to get ready, nothing to add to the settings."""
        return {}

    def holds(self) -> Sequence[Held]:
        """No model."""
        return ()


def check_weight(weight: float, name: str) -> None:
    """Check the factor of the reward `name`: any number, below 0 for what is unwanted, 0 for what is only watched."""
    if not math.isfinite(weight):
        raise UserError(f"is {weight}", f"reward.{name}.weight", "give a number")


def completion_text(completion: Any) -> str:
    """An answer as TRL gives it: a list of one turn, or a text."""
    return completion if isinstance(completion, str) else str(completion[0]["content"])
