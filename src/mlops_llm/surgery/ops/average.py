"""`op=average`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.surgery.adapters import Additive
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.merge.linear import linear
from mlops_llm.surgery.merging import next_steps, parents
from mlops_llm.surgery.method import NEW, Target
from mlops_llm.surgery.planning import Planned
from mlops_llm.surgery.trained import last, refs

if TYPE_CHECKING:
    from torch import Tensor


@component("op", "average")
@dataclass
class Average(Additive):
    """Average of checkpoints of one training, equal or weighted (SWA: Izmailov et al. 2018, arXiv:1803.05407)."""

    last: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """How many checkpoints are taken, the last ones; null takes all."""

    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.last is not None and self.last < 1:
            raise UserError(f"is {self.last}", "op.last", "give a whole number from 1, or null")

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """The weighted sum."""
        return linear(tensors, self.shares(len(tensors)), target.out)

    def said(self, count: int) -> str:
        """The method for a person."""
        return f"{'weighted ' if self.weights else ''}average of {count} checkpoints (SWA)"

    def plan(self, request: Surgery) -> Planned:
        """See that the checkpoints can be averaged.

        Raises:
            UserError: they cannot.
        """
        sources = parents(self, replace(request, models=last(refs(request), self.last, "op.last")))
        made = replace(self.planned(request, sources), name="averaged", before=[sources[-1]])
        return made if self.keep_adapter else replace(made, next=next_steps(request, [sources[-1]]))
