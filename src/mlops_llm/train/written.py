"""What methods share that learn from answers somebody wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.models.load import Files, Task
from mlops_llm.train.algorithm import halved
from mlops_llm.train.needs import Held, Rollout

if TYPE_CHECKING:
    from mlops_llm.train.config import Train, Trainer
    from mlops_llm.train.job import Job


class Written:
    """One pass over rows of at most `max_tokens` tokens, and no model besides."""

    task: ClassVar[Task] = Task.language

    @property
    def loss_name(self) -> str:
        """That of a language model."""
        return "cross entropy, nats a token"

    def resumed(self, folder: Path) -> None:
        """Nothing to take up."""

    def holds(self, settings: Train, files: Files) -> Sequence[Held]:
        """No model besides."""
        return ()

    def rollout(self, trainer: Trainer) -> Rollout | None:
        """Nothing is sampled."""
        return None

    def lighter(self) -> Mapping[str, Any]:
        """Nothing to save without loss."""
        return {}

    def shorter(self) -> Mapping[str, Any]:
        """Rows that are cut earlier."""
        return halved(self, "max_tokens")

    def conclude(self, job: Job) -> dict[str, str]:
        """Nothing to add."""
        return {}
