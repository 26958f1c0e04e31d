"""What the streaming of tensors asks of a method of merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlops_llm.surgery.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

Walk = Callable[[], Iterable[tuple[Sequence["Tensor"], "Tensor"]]]
"""Gives each tensor of the models with that of the base, from the first to the last; it may be called several times."""


@dataclass(frozen=True)
class Target:
    """One tensor of a result."""

    name: str = ""
    """A seeded method draws by it."""
    seed: int = 0
    """Of what is drawn."""
    limits: Sequence[float] | None = None
    """What `Merging.limits` gave for these models."""
    out: Tensor | None = None
    """Where the result goes, in its own type and contiguous; None makes a float32 tensor."""


NEW = Target()
"""A new tensor, of no name."""


class Method(Protocol):
    """Makes one tensor of several; `merging.Merging` is what all are made of."""

    vocabulary: Vocabulary
    save_log: bool
    save_intermediate: bool

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = ...) -> Tensor:
        """Make one tensor of several."""
        ...

    def limits(self, walk: Walk, count: int) -> Sequence[float] | None:
        """What must be known of all tensors before the first is merged."""
        ...
