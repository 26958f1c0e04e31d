"""A stage that is tried with several settings: each try is the ordinary command in a run of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.eval.recording import higher
from mlops_llm.pipeline.earlier import GIVEN_UP
from mlops_llm.pipeline.ended import Ended, State
from mlops_llm.pipeline.flow import Step
from mlops_llm.pipeline.search import Study
from mlops_llm.record import Registration
from mlops_llm.tracking import ledger, nested
from mlops_llm.tracking.store import Store

if TYPE_CHECKING:
    from mlops_llm.pipeline.running import Work

_TURN = 2.0
"""Seconds between two looks at the numbers of a try."""


@dataclass(frozen=True)
class Tried:
    """A try and what it came to."""

    settings: Mapping[str, str]
    ended: Ended
    value: float | None
    """None of one that failed."""
    pruned: bool = False


def searched(work: Work, step: Step, head: str) -> Ended:
    """Try a stage with the settings that are proposed; its end is that of the best try.

    Tries whose inputs are those of earlier ones are not made again, so a search that was cut off goes the same way.

    Args:
        work: the flow that is being carried out.
        step: the stage.
        head: what lines about it begin with.

    Raises:
        UserError: no try succeeded, or a number is not there.
    """
    search, began = step.stage.search, time.perf_counter()
    study = Study(search, work.flow.settings.seed, higher(search.by) is not False)
    tried = list[Tried]()
    for number in range(1, search.tries + 1):
        settings = study.ask()
        said = ", ".join(f"{key}={value}" for key, value in settings.items())
        console.say(f"{head}: try {number} of {search.tries}: {said}")
        one = _one(work, step, number, settings)
        ended = work.one(one, f"  try {number}", _Watch(work.store, study, search.by))
        tried.append(_told(work.store, study, search.by, settings, ended))
    return _best(work, step, tried, time.perf_counter() - began)


@dataclass
class _Watch:
    """Looks at the numbers of a run while it runs."""

    store: Store
    study: Study
    by: str
    last: float = 0.0

    def __call__(self, run: str) -> bool:
        """Whether a run is to be given up now."""
        if time.monotonic() - self.last < _TURN:
            return False
        self.last = time.monotonic()
        given_up = self.study.report(_course(self.store, run, self.by))
        if given_up:
            nested.note(self.store, run, {GIVEN_UP: self.by})
        return given_up


def _course(store: Store, run: str, by: str) -> dict[int, float]:
    return {each.step: each.value for each in ledger.history(store, run, by) if math.isfinite(each.value)}


def _one(work: Work, step: Step, number: int, settings: Mapping[str, str]) -> Step:
    """A try as a stage of its own, which registers nothing."""
    own = [f"{key}={value}" for key, value in settings.items()]
    own += ["register_as=null"] if "register_as" in work.flow.known[step.name].fields else []
    one = replace(step, name=f"{step.name}-{number}", words=step.words.plus(own), when=None)
    work.flow.known[one.name] = work.flow.composed(one, work.flow.bare(one))
    return one


def _told(store: Store, study: Study, by: str, settings: Mapping[str, str], ended: Ended) -> Tried:
    """Tell the study what a try came to."""
    run = ended.made.run if ended.made else None
    if run is None:
        study.tell(None)
        return Tried(settings, ended, None)
    study.report(_course(store, run.id, by))
    if ended.state is State.left_out:
        study.tell(None, pruned=True)
        console.say(f"  given up: its {by} is worse than the median of the others")
        return Tried(settings, ended, None, pruned=True)
    found = _value(store, run, by)
    study.tell(found)
    console.say(f"  {by} {console.number(found)}")
    return Tried(settings, ended, found)


def _value(store: Store, run: ledger.RunRow, by: str) -> float:
    """The best value that a number has had in a run.

    Raises:
        UserError: the run has no such number.
    """
    course = _course(store, run.id, by)
    if not course:
        there = ", ".join(sorted(run.metrics)[:12])
        raise UserError(f"has no number '{by}'", run.name, f"give search.by one of: {there}")
    return (min if higher(by) is False else max)(course.values())


def _best(work: Work, step: Step, tried: list[Tried], seconds: float) -> Ended:
    """The end of a search: its best try, registered where the stage registers."""
    by = step.stage.search.by
    good = [each for each in tried if each.value is not None]
    columns = ["try", *step.stage.search.over, by, "ended"]
    rows = [
        [number, *each.settings.values(), each.value, "given up" if each.pruned else each.ended.state.value]
        for number, each in enumerate(tried, 1)
    ]
    console.grid(f"{step.name}: {len(tried)} tries", columns, rows)
    work.run.artifact(f"search_{step.name}.json", {name: [row[at] for row in rows] for at, name in enumerate(columns)})
    if not good:
        raise UserError("no try succeeded", f"stages.{step.name}", "see the reasons above")
    best = (min if higher(by) is False else max)(good, key=_known)
    made = best.ended.made
    assert made and made.run
    said = ", ".join(f"{key}={value}" for key, value in best.settings.items())
    why = f"{by} {console.number(best.value)}, best of {len(tried)} tries: {said}"
    name = work.flow.known[step.name].values.get("register_as")
    if name and (checkpoint := made.run.tags.get("best.checkpoint")):
        work.run.register(Registration(checkpoint, str(name), "challenger", why, made.run.id))
    console.say(f"  {step.name}: {why}")
    state = State.done if any(each.ended.state is State.done for each in tried) else best.ended.state
    return replace(best.ended, step=step, state=state, made=replace(made, name=step.name), seconds=seconds, reason=why)


def _known(one: Tried) -> float:
    assert one.value is not None
    return one.value
