"""`op=ema`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.models.ref import resolve
from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.merging import next_steps, planned
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.ops.merge_linear import MergeLinear
from mlops_llm.surgery.planning import Planned, source
from mlops_llm.surgery.trained import refs


@component("op", "ema")
@dataclass
class Ema:
    """Exponential moving average over the saved checkpoints of a training (Tarvainen and Valpola 2017, arXiv:1703.01780).

    The decay is that of one optimizer step, as in train's `ema.decay`: between checkpoints n steps apart the weights count as
    standing still, so that what was averaged before keeps a share decay^n. The first checkpoint is where the average begins.
    """

    decay: float = 0.99
    """Share of the average that a step leaves; nearer to 1 looks further back."""
    start_step: int = 0
    """Checkpoints of earlier steps are left out."""
    save_log: bool = False
    """Write merge.log beside the weights: for each tensor how far the result is from each checkpoint."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (math.isfinite(self.decay) and 0.0 <= self.decay < 1.0):
            raise UserError(f"is {self.decay}", "op.decay", "give a number from 0 to below 1")
        if self.start_step < 0:
            raise UserError(f"is {self.start_step}", "op.start_step", "give a whole number from 0")

    def prepare(self, request: Surgery) -> Work | Result:
        """Plan the average of a training's checkpoints."""
        return work(self.plan(request), dry_run=self.dry_run)

    def plan(self, request: Surgery) -> Planned:
        """Find the checkpoints and the weight that each has in the end.

        Raises:
            UserError: there are none, or they do not fit each other.
        """
        found = {ref: resolve(ref).step for ref in refs(request)}
        taken = sorted((ref for ref in found if found[ref] >= self.start_step), key=lambda ref: found[ref])
        if not taken:
            what = f"is {self.start_step}, and the last checkpoint is of step {max(found.values())}"
            raise UserError(what, "op.start_step", "give an earlier one")
        weights = shares([found[ref] for ref in taken], self.decay)
        sources = [source(ref, request, weight=weight) for ref, weight in zip(taken, weights, strict=True)]
        plan = planned(MergeLinear(weights=weights, save_log=self.save_log), request, sources, None)
        return replace(
            plan,
            method=f"EMA over {len(taken)} checkpoints (decay {self.decay:g} a step)",
            name="ema",
            facts={**plan.facts, "steps": ", ".join(str(found[ref]) for ref in taken)},
            before=[sources[-1]],
            warnings=[*_uncounted([(ref, found[ref]) for ref in taken]), *plan.warnings],
            next=next_steps(request, [sources[-1]]),
        )


def _uncounted(taken: Sequence[tuple[str, int]]) -> list[str]:
    """What a person should know of checkpoints that no step lies before: their weight is zero."""
    equal = ((before, ref, step) for (before, at), (ref, step) in pairwise(taken) if at == step)
    return [f"{ref} is of step {step}, as {before} is, so it counts nothing" for before, ref, step in equal]


def shares(steps: Sequence[int], decay: float) -> list[float]:
    """The weight that each checkpoint has in the end; they sum to 1.

    Args:
        steps: of the checkpoints, rising.
        decay: of one step.
    """
    weights = [1.0]
    for before, after in pairwise(steps):
        kept = decay ** (after - before)
        weights = [*(each * kept for each in weights), 1.0 - kept]
    return weights
