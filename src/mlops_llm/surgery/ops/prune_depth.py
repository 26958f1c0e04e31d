"""`op=prune_depth`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_llm.component import component
from mlops_llm.surgery.calibration import Calibrating
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.pruning.amount import Of, check
from mlops_llm.surgery.pruning.operation import Prunes

if TYPE_CHECKING:
    from mlops_llm.surgery.pruning.cut import Cut
    from mlops_llm.surgery.pruning.pruning import Pruning


@component("op", "prune_depth")
@dataclass
class PruneDepth(Prunes, Calibrating):
    """Leave out whole layers: those that change the hidden states least (ShortGPT, Men et al. 2024, arXiv:2403.03853)."""

    ratio: float = 0.1
    """Share of all parameters that goes, as near as whole layers come to it; what was reached is printed."""
    of: Of = Of.parameters
    """What the ratio is a share of: parameters, or unit for the layers alone."""
    layers: list[int] = field(default_factory=list)
    """Layers that go, from 0, named instead of told by calibration rows; the ratio is then not looked at."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.ratio)

    def pruning(self, request: Surgery) -> Pruning:
        """What goes of the model, and how it is chosen."""
        from mlops_llm.surgery.pruning.amount import amount, named
        from mlops_llm.surgery.pruning.layout import Unit
        from mlops_llm.surgery.pruning.pruning import Pruning, warned, whole

        of = whole(request)
        goes = named(of.layout, self.layers) if self.layers else amount(of.layout, Unit.layer, self.ratio, self.of)
        rows = of.rows(self, request)
        facts = {"layers": ", ".join(map(str, sorted(self.layers)))} if self.layers else {}

        def choose(model: Any) -> Cut:
            from mlops_llm.surgery.pruning import importance
            from mlops_llm.surgery.pruning.cut import without_layers

            if self.layers:
                return without_layers(of.layout, self.layers)
            influence = of.once("layers", rows, lambda: importance.layers(model, rows.rows))
            gone = sorted(sorted(range(len(influence)), key=lambda each: influence[each])[: goes.gone])
            facts["layers"] = ", ".join(f"{each} (influence {influence[each]:.3f})" for each in gone)
            return without_layers(of.layout, gone)

        method = "fewer layers, those named" if self.layers else "fewer layers, those of the least block influence"
        warnings = [] if self.layers else warned(rows, "layers are chosen")
        return Pruning(request, self, method, of, goes, rows, choose, warnings, facts=facts)
