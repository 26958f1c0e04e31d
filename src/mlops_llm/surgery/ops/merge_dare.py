"""`op=merge_dare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.surgery.merge.dare import Rescale, dare, draw
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.method import NEW, Target

if TYPE_CHECKING:
    from torch import Tensor


@component("op", "merge_dare")
@dataclass
class MergeDare(Merging):
    """Drop changes from the base at random, make up for them, add the rest (Yu et al. 2024, arXiv:2311.03099)."""

    drop_rate: float = 0.2
    """How likely each change is dropped; seed= decides which."""
    ties: bool = False
    """Only changes whose sign is the elected one count, as in TIES."""
    normalize: bool = False
    """With op.ties: divide what agrees by the weights of those that agree."""
    rescale: Rescale = Rescale.paper
    """paper divides what is left by 1 - drop_rate; l1 keeps each tensor's sum of sizes, as mergekit does."""

    needs_base: ClassVar[bool] = True
    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0.0 <= self.drop_rate < 1.0:
            raise UserError(f"is {self.drop_rate}", "op.drop_rate", "give a number from 0 to below 1")
        if self.normalize and not self.ties:
            raise UserError("divides by the weights, which sum to 1 already", "op.normalize", "leave it out, or op.ties=true")

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """Base plus what was not dropped."""
        assert base is not None
        count = len(tensors)
        draws = [draw(target.seed, target.name, place) for place in range(count)]
        return dare(
            base,
            tensors,
            self.shares(count),
            self.drop_rate,
            draws,
            self.rescale,
            ties=self.ties,
            normalize=self.normalize,
            out=target.out,
        )

    def said(self, count: int) -> str:
        """The method for a person."""
        more = " with TIES" if self.ties else ""
        return f"DARE{more} (drop rate {self.drop_rate:g}, rescaled by {self.rescale.name})"
