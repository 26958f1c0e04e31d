"""What earlier trainings on this machine say of a prediction: how many times as much they really took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_llm.errors import UserError

if TYPE_CHECKING:
    from mlops_llm.train.config import Train

LAST = 5
"""How many runs of the nearest sort count."""
_LOOKED_AT = 40


@dataclass(frozen=True)
class Past:
    """An earlier training."""

    base: str
    """Ref of the start model."""
    algo: str
    peft: str
    memory: float
    """Real over predicted, before any correction."""
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


def correction(past: Sequence[Past], base: str, algo: str, peft: str) -> Correction:
    """Medians over the last runs of the nearest sort: of the same start model and method, else of the method, else any.

    Args:
        past: newest first.
        base: ref of the start model.
        algo: name of the method.
        peft: which weights are trained.
    """
    alike = [one for one in past if (one.algo, one.peft) == (algo, peft)]
    sorts = ([one for one in alike if one.base == base], alike, [one for one in past if one.algo == algo], past)
    nearest = next((sort for sort in sorts if sort), [])[:LAST]
    if not nearest:
        return Correction()
    memory, seconds = (statistics.median(getattr(one, name) for one in nearest) for name in ("memory", "seconds"))
    return Correction(memory, seconds, len(nearest))


def past(device: str) -> list[Past]:
    """Earlier trainings on a device, newest first; none where there is no record, or its server does not answer."""
    from mlops_llm.tracking import ledger, store

    if not store.exists():
        return []
    try:
        rows = ledger.predicted(store.connect(), device, _LOOKED_AT)
    except UserError:
        return []  # a run says so when it opens; a plan needs no record
    return [one for row in rows if (one := _past(row.params, row.tags, row.metrics))]


def _past(params: Mapping[str, str], tags: Mapping[str, str], metrics: Mapping[str, float]) -> Past | None:
    ratios = [
        metrics.get(f"real/{name}", 0.0) / metrics.get(f"predicted/raw_{name}", 0.0)
        for name in ("memory_bytes", "seconds")
        if metrics.get(f"predicted/raw_{name}", 0.0) > 0
    ]
    if len(ratios) < 2:
        return None
    return Past(tags.get("base", ""), params.get("choice.algo", ""), params.get("choice.peft", ""), *ratios)


def names(settings: Train) -> tuple[str, str, str]:
    """Start model, method and trained weights of a training, as the record names them."""
    from mlops_llm import component

    table = component.groups()
    algo, peft = (
        next(name for name, cls in table[group].items() if cls is type(getattr(settings, group))) for group in ("algo", "peft")
    )
    return settings.model, algo, peft
