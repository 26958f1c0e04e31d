"""What the streaming of tensors asks of a method of merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mlops_llm.surgery.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
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
    known: MutableMapping[tuple[str, str], Any] | None = None
    """What was found of these very tensors before, where they are merged again and again."""

    def once(self, what: str, find: Callable[[], T]) -> T:
        """What follows from the tensors alone, whatever the method's settings are: it is found once.

        Args:
            what: its name.
            find: finds it.
        """
        if self.known is None:
            return find()
        key = (self.name, what)
        if key not in self.known:
            self.known[key] = find()
        found: T = self.known[key]
        return found


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
