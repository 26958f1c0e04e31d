"""`op=merge_task_arithmetic`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlops_llm.component import component
from mlops_llm.surgery.adapters import Additive
from mlops_llm.surgery.merge.task_arithmetic import task_arithmetic
from mlops_llm.surgery.merging import numbers
from mlops_llm.surgery.method import NEW, Target

if TYPE_CHECKING:
    from torch import Tensor


@component("op", "merge_task_arithmetic")
@dataclass
class MergeTaskArithmetic(Additive):
    """The base plus what each model learned, times a factor of any size (Ilharco et al. 2023, arXiv:2212.04089).

    op.weights are the factors and need not sum to 1; empty gives each 1. A negative one takes away what a model learned.
    """

    needs_base: ClassVar[bool] = True
    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check that factors are finite."""
        numbers(self.weights, "op.weights")

    def shares(self, count: int) -> list[float]:
        """The factors; each is 1 where none is given."""
        return super().shares(count) if self.weights else [1.0] * count

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """Base plus factors times changes."""
        assert base is not None
        return task_arithmetic(base, tensors, self.shares(len(tensors)), target.out)

    def said(self, count: int) -> str:
        """The method for a person."""
        return f"task arithmetic (factors {', '.join(f'{each:g}' for each in self.shares(count))})"
