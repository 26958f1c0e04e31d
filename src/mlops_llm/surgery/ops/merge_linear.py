"""`op=merge_linear`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlops_llm.component import component
from mlops_llm.surgery.adapters import Additive
from mlops_llm.surgery.merge.linear import linear
from mlops_llm.surgery.method import NEW, Target

if TYPE_CHECKING:
    from torch import Tensor


@component("op", "merge_linear")
@dataclass
class MergeLinear(Additive):
    """Weighted average of two or more models (model soups: Wortsman et al. 2022, arXiv:2203.05482)."""

    has_ends: ClassVar[bool] = True

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """The weighted sum."""
        return linear(tensors, self.shares(len(tensors)), target.out)

    def said(self, count: int) -> str:
        """The method for a person."""
        return "weighted average"
