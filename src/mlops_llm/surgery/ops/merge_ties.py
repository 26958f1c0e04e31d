"""`op=merge_ties`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.surgery.merge.ties import Form, changes, limit, ties
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.method import NEW, Target, Walk

if TYPE_CHECKING:
    from torch import Tensor


@component("op", "merge_ties")
@dataclass
class MergeTies(Merging):
    """Trim small changes from the base, elect signs, merge what agrees (Yadav et al. 2023, arXiv:2306.01708)."""

    density: float = 0.8
    """Share of the changes that is kept, the largest ones."""
    form: Form = Form.mergekit
    """mergekit trims each tensor, divides by the agreeing weights; authors trims the whole model, divides by their number."""
    scale: float = 1.0
    """The paper's lambda: factor of the merged change."""

    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0.0 < self.density <= 1.0:
            raise UserError(f"is {self.density}", "op.density", "give a number above 0, up to 1")
        if not math.isfinite(self.scale):
            raise UserError(f"is {self.scale}", "op.scale", "give a finite number")

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """Base plus what agrees of the trimmed changes; without limits the tensor is taken for the whole model."""
        assert base is not None
        kept = target.limits or [limit(changes(base, each), self.density) for each in tensors]
        return ties(base, tensors, self.shares(len(tensors)), kept, self.form, self.scale, target.out)

    def limits(self, walk: Walk, count: int) -> Sequence[float] | None:
        """In the authors' form: the smallest change of each whole model that is kept."""
        if self.form is Form.mergekit or self.density >= 1.0:
            return None

        def of(place: int) -> Iterator[Tensor]:
            for tensors, base in walk():
                yield from changes(base, tensors[place])()

        return [limit(lambda place=place: of(place), self.density) for place in range(count)]  # type: ignore[misc]

    def said(self, count: int) -> str:
        """The method for a person."""
        more = f", scale {self.scale:g}" if self.scale != 1.0 else ""
        return f"TIES (density {self.density:g}, {self.form.name}'s form{more})"
