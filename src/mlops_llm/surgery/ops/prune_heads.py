"""`op=prune_heads`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_llm.component import component
from mlops_llm.surgery.calibration import Calibrating
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.pruning.amount import Of, check
from mlops_llm.surgery.pruning.operation import Prunes

if TYPE_CHECKING:
    from mlops_llm.surgery.pruning.cut import Cut
    from mlops_llm.surgery.pruning.pruning import Pruning


@component("op", "prune_heads")
@dataclass
class PruneHeads(Prunes, Calibrating):
    """Leave out key/value heads with the query heads that look at them, equally many in each layer.

    A group's importance is that of its heads' outputs: mean |activation| over calibration rows times the norm of their weights
    in the output projection. A qwen2 is written as the llama that it then is.
    """

    ratio: float = 0.05
    """Share of all parameters that goes, as near as whole groups come to it; what was reached is printed."""
    of: Of = Of.parameters
    """What the ratio is a share of: parameters, or unit for the heads alone."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.ratio)

    def pruning(self, request: Surgery) -> Pruning:
        """What goes of the model, and how it is chosen."""
        from mlops_llm.surgery.pruning.amount import amount
        from mlops_llm.surgery.pruning.layout import Unit
        from mlops_llm.surgery.pruning.pruning import Pruning, warned, whole

        of = whole(request)
        goes = amount(of.layout, Unit.group, self.ratio, self.of)
        rows = of.rows(self, request)

        def choose(model: Any) -> Cut:
            from mlops_llm.surgery.pruning import importance
            from mlops_llm.surgery.pruning.cut import best

            scores = of.once("groups", rows, lambda: importance.groups(model, rows.rows, of.layout.groups))
            return best(of.layout, Unit.group, scores, goes.kept)

        each = of.layout.heads // of.layout.groups
        heads = f"{each * goes.kept} of {of.layout.heads} attention heads and {goes.kept} of {of.layout.groups} key/value heads"
        method = f"{heads} a layer stay, those of the largest outputs"
        warnings = warned(rows, "heads are chosen")
        return Pruning(request, self, method, of, goes, rows, choose, warnings)
