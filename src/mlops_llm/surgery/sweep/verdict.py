"""What a sweep comes to: the best point, and whether it is better than the models that were merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlops_llm.eval import shown
from mlops_llm.eval.comparison import Model
from mlops_llm.eval.significance import LEVEL, Paired, holm
from mlops_llm.eval.versus import tested
from mlops_llm.surgery.sweep.asking import Point

RECOMMENDED, CHANCE, UNTESTED = "recommended", "best, within chance", "best, not tested"


@dataclass(frozen=True)
class Verdict:
    """The best of all points, beside the best parent."""

    best: Point
    """The best of those merges that are certainly better than both parents; else, where there is none, of all points."""
    parent: Point
    found: Paired | None
    """The best merge's difference to the best parent; None where there is no merge, or nothing can be tested."""
    p: float
    """Its p by Holm, over all merges, since the best of many is taken."""
    untested: str
    """Why nothing could be tested."""
    ahead: Point | None = None
    """A merge with a better score than the best one, which is within chance of the parent."""

    @property
    def is_gain(self) -> bool:
        """Whether the best point is a merge that is certainly better than both parents."""
        return self.best.parent is None and self.found is not None and self.p <= LEVEL

    @property
    def mark(self) -> str:
        """How the best point is marked: what is within chance of the parents is not recommended."""
        if self.best.parent is not None or self.is_gain:
            return RECOMMENDED
        return CHANCE if self.found else UNTESTED

    @property
    def said(self) -> str:
        """For a person, in one line."""
        if self.best.parent is not None:
            return f"no gain over the parents: none of the merges is better than {self.parent.name}"
        score = self.best.score
        ahead = shown.value(score, abs(score.value - self.parent.score.value))
        if self.found is None:
            return f"{ahead} better than {self.parent.name}; not tested: {self.untested}"
        test = f"p = {self.p:.2g} by paired test over {self.found.count} samples, adjusted for all points (Holm)"
        if not self.is_gain:
            return f"no gain over the parents: {ahead} better than {self.parent.name} is within chance ({test})"
        beside = f"; {self.ahead.name} ({shown.value(self.ahead.score)}) is within chance" if self.ahead else ""
        return f"{ahead} better than {self.parent.name}, the better parent ({test}){beside}"


def verdict(points: Sequence[Point], seed: int = 0) -> Verdict:
    """Find the best point and test it.

    Where a parent is as good as a merge, it is the parent.

    Args:
        points: with the parents.
        seed: of what the test draws.
    """
    better = 1.0 if points[0].score.higher_is_better else -1.0
    ranked = sorted(points, key=lambda each: (-better * each.score.value, each.parent is None, each.number))
    parent = next(each for each in ranked if each.parent is not None)
    merges = [each for each in ranked if each.parent is None]
    if not merges:
        return Verdict(ranked[0], parent, None, 1.0, "")
    found = [_paired(parent, each, seed) for each in merges]
    why = next((each for each in found if isinstance(each, str)), "")
    tests = [each for each in found if isinstance(each, Paired)]
    if why or len(tests) < len(merges):
        return Verdict(ranked[0], parent, None, 1.0, why)
    chances = holm([each.p for each in tests])
    ahead = next(place for place, each in enumerate(ranked) if each is parent)
    place = next((place for place in range(ahead) if chances[place] <= LEVEL), None)
    if place is None:
        return Verdict(ranked[0], parent, tests[0], chances[0], "")
    return Verdict(merges[place], parent, tests[place], chances[place], "", merges[0] if place else None)


def _paired(parent: Point, merge: Point, seed: int) -> Paired | str:
    """The difference of two points by the deciding score, else why it cannot be tested."""
    models = [
        Model(number, each.name, replace(each.outcome, scores=[each.score])) for number, each in enumerate((parent, merge), 1)
    ]
    (row,) = tested(models, seed=seed)
    return row.untested or row.pairs[0].found
