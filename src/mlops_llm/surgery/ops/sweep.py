"""`op=sweep`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from mlops_llm.component import component, name_of, near
from mlops_llm.errors import UserError, need
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.plan import prepare as evaluation
from mlops_llm.eval.recording import PREFIX, named
from mlops_llm.record import Result
from mlops_llm.surgery import memory
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import work
from mlops_llm.surgery.merging import Merging, base, parents
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Planned
from mlops_llm.surgery.sweep import search as searches
from mlops_llm.surgery.sweep.asking import scores_of
from mlops_llm.surgery.sweep.memory import Merged
from mlops_llm.surgery.sweep.points import RATIO, Space, varies
from mlops_llm.surgery.sweep.search import At, Search, Searching
from mlops_llm.surgery.sweep.working import Swept

_MOST = 2000
"""Points of a sweep."""


@component("op", "sweep")
@dataclass
class Sweep:
    """Find the best of many merges: each is made and asked in memory, only the best one is written."""

    method: str = "merge_slerp"
    """The merge: merge_slerp, merge_linear, merge_task_arithmetic, merge_ties, merge_dare."""
    settings: Any = None
    """Settings of the merge, the same at all points: op.settings={density:0.8}."""
    over: str = RATIO
    """What is varied: ratio is the first model's share (slerp runs at t = 1 - ratio), else a number of the merge: density."""
    points: int = 11
    """Points of the grid; golden is as fine with fewer, optuna asks as many. Of three models: points of an edge."""
    start: float = 0.0
    """Where the varied number begins."""
    stop: float = 1.0
    """Where it ends."""
    search: Search = Search.grid
    """grid asks all points, golden narrows the one best place down, optuna proposes (needs the extra search)."""
    score: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Which score decides; null is the judge's rating as a whole, else the first one of metric= or benchmark=."""
    notes: list[str] = field(default_factory=list)
    """What each model is, for a person; kept in the recipe."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 2 <= self.points <= _MOST:
            raise UserError(f"is {self.points}", "op.points", f"give a whole number from 2 to {_MOST}")
        for name in ("start", "stop"):
            value = getattr(self, name)
            if not math.isfinite(value) or (self.over == RATIO and not 0.0 <= value <= 1.0):
                raise UserError(
                    f"is {value}", f"op.{name}", "give a share from 0 to 1" if self.over == RATIO else "give a number"
                )
        if self.start >= self.stop:
            raise UserError(f"is {self.start:g}, and op.stop is {self.stop:g}", "op.start", "give a smaller one")
        if self.settings is not None and not isinstance(self.settings, dict):
            raise UserError(f"is {self.settings}", "op.settings", "give settings of the merge: op.settings={density:0.8}")

    def prepare(self, request: Surgery) -> Work | Result:
        """See that all points can be made and asked; no weight is read yet."""
        if name_of(request.engine) != "hf":
            raise UserError("asks what lies on disk, and these models are in memory", "engine", "take engine=hf")
        settings = {**(self.settings or {}), **({"notes": list(self.notes)} if self.notes else {})}
        space = varies(self.method, self.over, settings, request.models)
        places = self._places(space)
        sample = space.merging(places[len(places) // 2])
        planned = self._written(sample, request)
        sources = parents(sample, request)
        under = base(sample, request)
        plans = self._plans(request)
        subject = plans[0].subject
        assert subject
        merged = Merged(sample, request, sources, under, subject.tokenizer)
        swept = Swept(
            request,
            space,
            sources,
            merged,
            plans,
            self._search(space, places, request.seed),
            self.score,
            lambda method: self._written(method, request),
        )
        if self.dry_run:
            return swept.shown(planned, len(places) if self.search is Search.grid else None)
        work(planned)  # for its checks: room on the disk, a new folder
        memory.enough(merged.memory, {f"single merges by op={self.method}": planned.memory})
        return swept.work

    def _written(self, method: Merging, request: Surgery) -> Planned:
        return method.plan(replace(request, op=method))

    def _places(self, space: Space) -> list[At]:
        """The grid, each of its places tried with the merge's own checks.

        Raises:
            UserError: there are too many, or one is refused.
        """
        is_simplex = space.models > 2 and space.over == RATIO
        if is_simplex and (self.start, self.stop) != (0.0, 1.0):
            raise UserError("is for two models", "op.start", "leave op.start and op.stop out: shares of three begin at 0")
        if is_simplex and self.search is Search.golden:
            raise UserError("follows one number, and three models have two", "op.search", "take grid or optuna")
        if is_simplex and (count := math.comb(self.points + space.models - 2, space.models - 1)) > _MOST:
            raise UserError(f"gives {count:,} points", "op.points", "give fewer, or op.search=optuna")
        found = (
            searches.shares(space.models, self.points) if is_simplex else searches.evenly(self.start, self.stop, self.points)
        )
        for each in found:
            space.merging(each)
        if self.search is Search.optuna:
            need("optuna", "search")
        return found

    def _search(self, space: Space, places: list[At], seed: int) -> Callable[[bool], Searching]:
        def begun(higher: bool) -> Searching:
            if self.search is Search.grid:
                return searches.over(places)
            if self.search is Search.golden:
                step = (self.stop - self.start) / (self.points - 1)
                return searches.golden(self.start, self.stop, step, higher_is_better=higher)
            count = space.models if space.over == RATIO else 1
            return searches.proposed(count, self.start, self.stop, self.points, seed, higher_is_better=higher)

        return begun

    def _plans(self, request: Surgery) -> list[Plan]:
        """The evaluation of each model, of the same rows by the same metrics.

        Raises:
            UserError: something does not fit, or no such score will be there.
        """
        first = evaluation(request.evaluation(request.models[0], "."))
        known = scores_of(first)
        wanted = (self.score or "").removeprefix(PREFIX)
        if wanted and known and wanted not in known and PREFIX + wanted not in map(named, known):
            raise UserError(
                f"'{wanted}' will be none of the scores{near(wanted, known)}", "op.score", f"one of: {', '.join(known)}"
            )
        asked = replace(request, metric=first.metrics)
        return [first, *(evaluation(asked.evaluation(ref, "."), first) for ref in request.models[1:])]
