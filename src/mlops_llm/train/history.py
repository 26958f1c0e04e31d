"""What earlier trainings on this machine say of a prediction: how many times as much they really took."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_llm import component
from mlops_llm.errors import UserError

if TYPE_CHECKING:
    from mlops_llm.train.config import Train

LAST = 5
"""How many runs of the nearest sort count."""


@dataclass(frozen=True)
class Past:
    """Of an earlier training: real over predicted, before any correction."""

    memory: float
    seconds: float


@dataclass(frozen=True)
class Correction:
    """Factors of a prediction."""

    memory: float = 1.0
    seconds: float = 1.0
    runs: int = 0
    """Earlier runs that tell them."""

    @property
    def said(self) -> str:
        """Where the factors come from."""
        return f"corrected by {self.runs} earlier run{'s' if self.runs > 1 else ''}" if self.runs else "uncorrected"


def correction(find: Callable[[Mapping[str, str]], Sequence[Past]], base: str, algo: str, peft: str) -> Correction:
    """Medians over the last runs of the nearest sort: of the same start model and method, else of the method, else any.

    Args:
        find: the last runs, newest first, whose tags and parameters (`tags.NAME`, `params.NAME`) are these.
        base: ref of the start model.
        algo: name of the method.
        peft: which weights are trained.
    """
    method = {"params.choice.algo": algo}
    sorts: tuple[dict[str, str], ...] = ({**method, "params.choice.peft": peft, "tags.base": base}, method, {})
    nearest = next((found for sort in sorts if (found := find(sort))), ())
    if not nearest:
        return Correction()
    memory, seconds = (statistics.median(getattr(one, name) for one in nearest) for name in ("memory", "seconds"))
    return Correction(memory, seconds, len(nearest))


def recorded(device: str) -> Callable[[Mapping[str, str]], Sequence[Past]]:
    """A function that finds earlier trainings on a device in the record; none where it is new, or its server is silent."""
    from mlops_llm.tracking import ledger, store

    if not store.exists():
        return lambda same: ()
    try:
        there = store.connect()
    except UserError:
        return lambda same: ()  # a run says so when it opens; a plan needs no record

    def find(same: Mapping[str, str]) -> list[Past]:
        rows = ledger.predicted(there, {"tags.device.name": device, **same}, LAST)
        return [one for row in rows if (one := told(row.metrics))]

    return find


def told(metrics: Mapping[str, float]) -> Past | None:
    """What a run tells, which may have stopped before its last step; one that did no step tells nothing."""
    pairs = {"real/memory_bytes": "predicted/raw_memory_bytes", "real/seconds": "predicted/raw_seconds"}
    pairs["real/steps"] = "predicted/steps"
    if not all(metrics.get(name) for pair in pairs.items() for name in pair):
        return None
    memory, seconds, steps = (metrics[real] / metrics[before] for real, before in pairs.items())
    return Past(memory, seconds / steps)


def names(settings: Train) -> tuple[str, str, str]:
    """Start model, method and trained weights of a training, as the record names them."""
    return settings.model, component.name_of(settings.algo), component.name_of(settings.peft)
