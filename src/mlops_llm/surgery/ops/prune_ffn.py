"""`op=prune_ffn`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.surgery.calibration import Calibrating
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.pruning.amount import Of, check
from mlops_llm.surgery.pruning.operation import Prunes

if TYPE_CHECKING:
    from mlops_llm.surgery.pruning.cut import Cut
    from mlops_llm.surgery.pruning.pruning import Pruning


class Importance(Enum):
    """How the neurons that stay are told."""

    activation = "activation"
    magnitude = "magnitude"


@component("op", "prune_ffn")
@dataclass
class PruneFfn(Prunes, Calibrating):
    """Leave out neurons of the feed-forward parts, equally many in each layer: those on which the model leans least."""

    ratio: float = 0.2
    """Share of all parameters that goes, as near as whole neurons come to it; what was reached is printed."""
    of: Of = Of.parameters
    """What the ratio is a share of: parameters, or unit for the neurons alone."""
    importance: Importance = Importance.activation
    """activation: mean |activation| over calibration rows times the norm of the neuron's output weights; magnitude: the product
    of the norms of its weights, which on some models is far worse than chance."""
    multiple: int = 8
    """The neurons that stay are a multiple of it, where all are one: GPU kernels want 8, 4-bit quantization its group size."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.ratio)
        if self.multiple < 1:
            raise UserError(f"is {self.multiple}", "op.multiple", "give a whole number from 1")

    def pruning(self, request: Surgery) -> Pruning:
        """What goes of the model, and how it is chosen."""
        from mlops_llm.surgery.pruning.amount import amount
        from mlops_llm.surgery.pruning.layout import Unit
        from mlops_llm.surgery.pruning.pruning import Pruning, warned, whole

        of = whole(request)
        goes = amount(of.layout, Unit.neuron, self.ratio, self.of, self.multiple)
        rows = of.rows(self, request)
        active = self.importance is Importance.activation
        warnings = warned(rows, "neurons are chosen") if active else [_WARNING]

        def choose(model: Any) -> Cut:
            from mlops_llm.surgery.pruning import importance
            from mlops_llm.surgery.pruning.cut import best

            if active:
                scores = of.once("neurons", rows, lambda: importance.neurons(model, rows.rows))
            else:
                scores = importance.neurons_by_magnitude(model)
            return best(of.layout, Unit.neuron, scores, goes.kept)

        method = f"fewer feed-forward neurons, the least important by {self.importance.name}"
        return Pruning(request, self, method, of, goes, rows, choose, warnings)


_WARNING = (
    "neurons are chosen by the norms of their weights alone, which on some models is far worse than chance "
    "(op.importance=activation looks at what they do)"
)
