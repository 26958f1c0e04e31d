"""`op=merge_slerp`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.surgery.merge.slerp import between, slerp
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.method import NEW, Target

if TYPE_CHECKING:
    from torch import Tensor


@component("op", "merge_slerp")
@dataclass
class MergeSlerp(Merging):
    """Spherical interpolation of two models, tensor by tensor (Shoemake 1985)."""

    t: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """0 gives the first model, 1 the second; null takes the second of op.weights, else 0.5."""

    has_ends: ClassVar[bool] = True
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        """Check the range, and that t and weights say the same."""
        super().__post_init__()
        if self.t is not None and not (math.isfinite(self.t) and 0.0 <= self.t <= 1.0):
            raise UserError(f"is {self.t}", "op.t", "give a number from 0 to 1")
        if self.t is not None and len(self.weights) == 2 and not math.isclose(self.t, self.weights[1], abs_tol=1e-6):
            what = f"is {self.t:g}, and op.weights gives the second model {self.weights[1]:g}"
            raise UserError(what, "op.t", "give one of them")

    def shares(self, count: int) -> list[float]:
        """The first model's share is 1 - t."""
        return super().shares(count) if self.t is None else [1.0 - self.t, self.t]

    def merge(self, tensors: Sequence[Tensor], base: Tensor | None = None, target: Target = NEW) -> Tensor:
        """A place on the arc between two tensors."""
        first, second = tensors
        cosine = partial(target.once, "cosine", partial(between, first, second))
        return slerp(self.shares(2)[1], first, second, target.out, cosine)

    def said(self, count: int) -> str:
        """The method for a person."""
        return f"SLERP (t = {self.shares(2)[1]:g})"
