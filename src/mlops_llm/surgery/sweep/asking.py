"""The points of a sweep, asked one after the other through the evaluation room, each in a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from mlops_llm import console, digest
from mlops_llm.component import near, plain
from mlops_llm.data.ref import record
from mlops_llm.errors import RequestError
from mlops_llm.eval import evaluation, recording, shown
from mlops_llm.eval.config import Publish
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.outcome import Outcome, Score
from mlops_llm.eval.overlap import Overlap
from mlops_llm.eval.plan import Plan
from mlops_llm.eval.recording import PREFIX
from mlops_llm.record import Run
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.planning import stored
from mlops_llm.surgery.sweep.memory import Merged
from mlops_llm.surgery.sweep.points import Space
from mlops_llm.surgery.sweep.search import At
from mlops_llm.tracking import ledger

_UNCHECKED = Overlap(check=False)
"""Whether the rows were met in training is said of the models themselves, not of each of their merges."""

_UNSHOWN = Publish(rows=0)
"""Answers of a point are in the table of its run, not also one by one in MLflow's view."""


@dataclass(frozen=True)
class Point:
    """A model of the sweep with what it did."""

    number: int
    """From 1; the run of its evaluation is called by it."""
    name: str
    """`ratio 0.6`; of a parent its ref."""
    at: At | None
    """None of a parent that is no place of the sweep."""
    parent: int | None
    """Which model it is itself, from 0."""
    outcome: Outcome
    score: Score
    """The one that decides."""


class Room:
    """Asks each point once."""

    def __init__(
        self, space: Space, merged: Merged, plans: Sequence[Plan], folder: Path, score: str | None, seed: int, run: Run
    ) -> None:
        """Ask nothing yet.

        Args:
            space: what is varied.
            merged: the model in memory.
            plans: the evaluation of each parent.
            folder: of the run's files; each point has one within it.
            score: name of the score that decides; None takes the judge's rating as a whole, else the first with a good end.
            seed: of what merges draw.
            run: within which each point has its own.
        """
        self._space, self._merged, self._plans, self._folder = space, merged, plans, folder
        self._score, self._seed, self._run = score, seed, run
        self._places: dict[At, Point] = {}
        self.points: list[Point] = []

    def parent(self, place: int) -> Point:
        """One of the models alone: what it was asked before comes from the cache."""
        plan, at = self._plans[place], self._space.at_end(place)
        assert plan.subject
        own, first = plan.subject, self._plans[0].subject
        assert first
        # Opened by an engine, an adapter is merged in the number format of the arithmetic, not in that of the result.
        same = not own.files.is_adapter and stored(own.files) is self._merged.stream.dtype and own.form == first.form
        if at is not None and same:
            merging = self._space.merging(at)
            plan = replace(plan, subject=replace(own, session=lambda: self._merged.session(merging)))
        found = self._asked(plan, plan.settings.model, at, place)
        if at is not None:
            self._places[at] = found
        return found

    def at(self, at: At) -> Point:
        """The point at a place."""
        if at not in self._places:
            name = self._space.said(at)
            self._places[at] = self._asked(self._merge(self._space.merging(at), name), name, at, None)
        return self._places[at]

    def _merge(self, merging: Merging, name: str) -> Plan:
        """The evaluation of a merge in memory."""
        first = self._plans[0]
        assert first.subject
        subject = replace(
            first.subject,
            digest=self._digest(merging),
            session=lambda: self._merged.session(merging),
        )
        label = f"{self._space.method} {name} of {', '.join(each.settings.model for each in self._plans)}"
        return replace(first, subject=subject, settings=replace(first.settings, model=label))

    def _digest(self, merging: Merging) -> str:
        """Of all that the answers of a merge depend on: what it is made of, how, and what it is like besides."""
        stream = self._merged.stream
        base = stream.sources[-1] if stream.has_base else None
        return digest.row(
            {
                "merge": plain(replace(merging, notes=[])),
                "models": [each.subject.digest for each in self._plans if each.subject],
                "base": base.digest if base else None,
                "dtype": stream.dtype.name,
                "seed": self._seed,
                "version": version("mlops-llm"),
            }
        )

    def _asked(self, plan: Plan, name: str, at: At | None, parent: int | None) -> Point:
        number = len(self.points) + 1
        folder = self._folder / str(number)
        judge = deepcopy(self._plans[0].settings.judge)
        settings = replace(plan.settings, output=str(folder), judge=judge, overlap=_UNCHECKED, publish=_UNSHOWN)
        plan = replace(plan, settings=settings)
        outcome, taken = evaluation.carried_out(plan, folder)
        score = self._decisive(outcome)
        console.say(f"{name}: {score.name} {shown.value(score)}")
        told = {f"point.{self._space.over}": list(at) if len(at) > 1 else at[0]} if at else {}
        if not _is_recorded(f"{self._run.name}-{number}"):
            inner = {"choice.op": self._space.method, "model": plan.settings.model, **told}
            with self._run.child(str(number), inner) as own:
                # The evaluation of a parent is one like others; of merges that are never written others need not hear.
                own.tags({"point": name, **({"stage": "eval"} if parent is not None else {})})
                recording.inputs(plan, own)
                recording.result(plan, outcome, replace(taken, peak=0, gpu=None), own, pictures=False)
        self._run.metrics({f"sweep/{recording.named(score.name).removeprefix(PREFIX)}": score.value}, number)
        found = Point(number, name, at, parent, outcome, score)
        self.points.append(found)
        return found

    def _decisive(self, outcome: Outcome) -> Score:
        """The score that decides.

        Raises:
            UserError: there is none of this name, or none with a good end.
        """
        if self._score is None:
            found = shown.overall(outcome) or next((each for each in outcome.scores if each.higher_is_better is not None), None)
            if found is None:
                raise RequestError("no score has a good end", "metric", "name one that has: metric=[bleu]")
            return found
        wanted, names = self._score.removeprefix(PREFIX), [each.name for each in outcome.scores]
        found = next(
            (each for each in outcome.scores if wanted in (each.name, recording.named(each.name)[len(PREFIX) :])), None
        )
        if found is None or found.higher_is_better is None:
            what = f"'{wanted}' is none of the scores{near(wanted, names)}" if found is None else "has no good end"
            raise RequestError(what, "op.score", f"one of: {', '.join(names)}")
        return found


def _is_recorded(name: str) -> bool:
    """Whether an evaluation is in the record whole, from before this run was stopped."""
    store = record()
    return store is not None and any(each.status == "FINISHED" for each in ledger.named(store, name))


def scores_of(plan: Plan) -> list[str]:
    """Names of the scores that an evaluation will give; empty where benchmarks give more."""
    if plan.benchmarks:
        return []
    judge = plan.settings.judge
    rated = [f"judge/{each}" for each in (*judge.dimensions, OVERALL)] if judge is not None else []
    return [*(name for each in plan.metrics.values() for name in each.names), *rated]
