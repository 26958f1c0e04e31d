"""What samples the answers that a method learns from: a component of the group `rollout`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from mlops_llm.train.config import Train


class Sampler(Protocol):
    """Makes a TRL trainer sample its answers in some way."""

    evaluated: ClassVar[tuple[str, ...]]
    """Names in the record of what an evaluation tells of its probabilities, where the training corrects for them."""

    def check(self, settings: Train) -> None:
        """See that it can run here, before anything is read.

        Raises:
            UserError: it cannot.
        """
        ...

    def arguments(self, tokens: int) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes.

        Args:
            tokens: most of a prompt and its answer together.
        """
        ...

    def memory(self, weights: int, there: int) -> int:
        """Bytes that it takes beside the training.

        Args:
            weights: bytes of the model's weights.
            there: bytes of the GPU, or of the machine where there is none.
        """
        ...

    def prepare(self) -> None:
        """Set what libraries read when they are imported; called before a trainer is built."""
        ...

    def attach(self, trainer: Any) -> None:
        """Change what must be changed in a trainer that was built with these arguments."""
        ...
