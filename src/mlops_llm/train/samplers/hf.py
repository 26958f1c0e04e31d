"""The model that is trained samples, by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import component

if TYPE_CHECKING:
    from mlops_llm.train.config import Train


@component("rollout", "hf")
@dataclass
class Hf:
    """The model that is trained samples (transformers' generate): needs nothing, and is slower than an engine on a GPU."""

    evaluated: ClassVar[tuple[str, ...]] = ()

    def check(self, settings: Train) -> None:
        """Runs everywhere."""

    def arguments(self, tokens: int) -> dict[str, Any]:
        """TRL's default."""
        return {}

    def memory(self, weights: int, there: int) -> int:
        """The model is there already."""
        return 0

    def prepare(self) -> None:
        """Nothing to set."""

    def attach(self, trainer: Any) -> None:
        """Nothing to change."""
