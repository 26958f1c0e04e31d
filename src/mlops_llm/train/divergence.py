"""Steps whose loss leaps or is no number, and the rows that they learned from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_llm import console
from mlops_llm.record import Run
from mlops_llm.train import ranks
from mlops_llm.train.steps import Seen, Step

if TYPE_CHECKING:
    from mlops_llm.train.plan import Part

WINDOW = 50
"""Steps before that a loss is compared with."""
LEAST = 20
"""Steps that must be there before anything is called a leap."""
MOST = 20
"""Steps of a run whose rows are named; a training that leaps more often has another trouble than rows."""
_NORMAL = 1.4826
"""Median absolute deviations in a standard deviation of a normal distribution."""


class Unusual(NamedTuple):
    """A step that is not as those before it."""

    why: str
    finite: bool


def unusual(step: int, losses: Mapping[int, float], deviations: float) -> Unusual | None:
    """Tell whether a step's loss is no number, or leaps above those before it.

    A leap is above the median of the last 50 losses by more than `deviations` robust standard deviations (1.4826 median
    absolute deviations), by more than half of that median, and by more than half a nat: where nearly all is learned, losses are
    so small that one is easily many times another.

    Args:
        step: the newest one.
        losses: loss of every step up to it.
        deviations: 0 looks for no leap.
    """
    loss = losses[step]
    if not math.isfinite(loss):
        return Unusual(f"the loss is {loss}", False)
    recent = [losses[each] for each in range(step - WINDOW, step) if each in losses]
    if not deviations or len(recent) < LEAST:
        return None
    middle = median(recent)
    spread = _NORMAL * median(abs(each - middle) for each in recent)
    if loss > max(middle + deviations * spread, 1.5 * middle, middle + 0.5):
        return Unusual(f"the loss leaps to {loss:.4f}, where {middle:.4f} is usual", True)
    return None


class Divergence:
    """Watches the loss of every step, names the rows of those that are unusual, and knows when nothing is left to learn."""

    def __init__(self, run: Run, part: Part, deviations: float) -> None:
        """Begin.

        Args:
            run: gets a table of rows for each unusual step, `spikes/step-N.json`.
            part: the rows that are trained on.
            deviations: see `unusual`.
        """
        self._run, self._part, self._deviations = run, part, deviations
        self._named = 0
        self._places: dict[tuple[int, ...], int] | None = None
        self._last: tuple[Step, Sequence[Seen]] | None = None
        self.broken = ""
        """Why the training cannot go on; empty while it can."""
        self.broken_from: int | None = None
        """Step whose weights are known to be broken, so that no checkpoint of it is a good one."""

    def look(self, step: Step, losses: Mapping[int, float], seen: Sequence[Seen]) -> None:
        """Judge a step of which `seen` are the batches."""
        self._last = (step, seen)
        found = unusual(step.step, losses, self._deviations)
        if found is None or self.broken:
            return
        if not found.finite:
            self.broken = f"{found.why} at step {step.step}"
            self._run.tags({"diverged.step": str(step.step)})
        if self._named < MOST:
            self._named += 1
            self._name(step, found, seen)

    def check(self, step: int, model: Any) -> None:
        """See that weights which are to be saved or to answer are numbers: an update that breaks them shows only later.

        The rows that the step learned from are named.
        """
        import torch

        if self.broken:
            return
        # Where a process has parts of the weights, it looks at its own.
        trained = [(name, weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad]
        mine = ((name, weight.to_local() if hasattr(weight, "to_local") else weight) for name, weight in trained)
        bad = next((name for name, weight in mine if not bool(torch.isfinite(weight).all())), "")
        bad = next((name for name in ranks.of_all([bad]) if name), "")
        if bad:
            self.end(step, f"the weights are no numbers any more after step {step} ({bad})")

    def end(self, step: int, why: str) -> None:
        """Say why a training cannot go on with the weights after a step, and name the rows that it learned from."""
        self.broken, self.broken_from = why, step
        self._run.tags({"diverged.step": str(step)})
        if self._last:
            self._name(self._last[0], Unusual(why, False), self._last[1])

    def _name(self, step: Step, found: Unusual, seen: Sequence[Seen]) -> None:
        places = list(
            dict.fromkeys(place for place in map(self._places_of, sequences(ranks.of_all(seen))) if place is not None)
        )
        source = self._part.source
        name = f"spikes/step-{step.step:05d}.json"
        table: dict[str, list[Any]] = {
            "row": [source.where(place) for place in places],
            "content": [json.dumps(source.rows[place], ensure_ascii=False, default=str)[:500] for place in places],
        }
        table |= {key: [value] * len(places) for key, value in (("step", step.step), ("loss", repr(step.loss)))}
        self._run.artifact(name, table)
        if found.finite:
            rows = ", ".join(table["row"][:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
            console.warn(f"step {step.step}: {found.why}; it learned from {rows or 'rows that are not known'} ({name})")

    def _places_of(self, ids: tuple[int, ...]) -> int | None:
        if self._places is None:
            self._places = {tuple(ids): one.place for one in self._part.encoded for ids in one.sequences}
        return self._places.get(ids)


def sequences(seen: Sequence[Seen]) -> Iterator[tuple[int, ...]]:
    """The token ids of every sequence in some batches, without padding; packed ones are taken apart."""
    for batch in seen:
        for place, ids in enumerate(batch.ids):
            if batch.positions is not None:
                starts = [*(batch.positions[place] == 0).nonzero()[0].tolist(), len(ids)]
                yield from (tuple(ids[a:b].tolist()) for a, b in pairwise(starts))
            else:
                yield tuple((ids if batch.mask is None else ids[batch.mask[place].astype(bool)]).tolist())
