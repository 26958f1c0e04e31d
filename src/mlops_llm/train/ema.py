"""The average of the weights over a training, kept beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from mlops_llm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


FILE = "ema.pt"
"""State of the averages within the folder of the raw checkpoint."""
PREFIX = "ema/"
"""Before the names of what an evaluation of the averages finds, so that the curves of the raw weights stay their own."""


@dataclass
class Ema:
    """An exponential moving average of the trained weights (Polyak and Juditsky 1992)."""

    decay: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Keep, evaluate and save the average of the weights with this decay a step, such as 0.999; null keeps none."""
    start_step: int = 0
    """Step whose weights the average begins with."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.decay is not None and not 0 < self.decay < 1:
            raise UserError(f"is {self.decay}", "ema.decay", "give a number between 0 and 1, such as 0.999, or null")
        if self.start_step < 0:
            raise UserError(f"is {self.start_step}", "ema.start_step", "give a step from 0")
        if self.start_step and self.decay is None:
            raise UserError("is given, and no average is kept", "ema.start_step", "give ema.decay too, such as 0.999")

    def check(self, steps: int) -> None:
        """See that the average begins before the training ends.

        Raises:
            UserError: it does not.
        """
        if self.decay is not None and self.start_step >= steps:
            what = f"is {self.start_step}, and the training ends at step {steps}"
            raise UserError(what, "ema.start_step", f"give a step below {steps}")


class Average:
    """Float32 shadows of the weights that are trained: s <- decay s + (1 - decay) w after every step."""

    def __init__(self, model: Any, decay: float) -> None:
        """Begin with the weights as they are."""
        self._decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.shadows: dict[str, Tensor] = {name: weight.detach().float().clone() for name, weight in self._weights.items()}

    def update(self) -> None:
        """Move towards the weights as they are now."""
        for name, weight in self._weights.items():
            self.shadows[name].lerp_(weight.detach().float(), 1 - self._decay)

    def load(self, shadows: Mapping[str, Tensor]) -> None:
        """Go on with shadows of an earlier process."""
        for name, shadow in self.shadows.items():
            shadow.copy_(shadows[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages as its weights, in its own number format, and has its own back afterwards."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            self._set(self.shadows)
            yield
        finally:
            self._set(kept)

    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.data.copy_(values[name])
