"""How fast models answer, and what memory they take, under equal conditions: each in a process of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.inference.engine import Generation

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from mlops_llm.eval.config import Eval
    from mlops_llm.eval.plan import Plan

PROMPTS, REPETITIONS = 20, 3
"""What each model is asked at a visit, and how often after a first time that does not count."""
_RESTLESS = 1.5
"""Times by which rounds of one model may differ before it is told."""


@dataclass(frozen=True)
class Speed:
    """What was measured of one model."""

    rounds: tuple[tuple[float, float], ...]
    """Of each round: seconds a sample (of a batch its share), and tokens a second."""
    memory: int
    """Most bytes that the process and its children held; on a GPU the most that torch held there."""

    @property
    def seconds(self) -> float:
        """A sample: median over the rounds."""
        return statistics.median(seconds for seconds, _ in self.rounds)

    @property
    def tokens(self) -> float:
        """Each second: median over the rounds."""
        return statistics.median(tokens for _, tokens in self.rounds)

    @property
    def between(self) -> tuple[float, float]:
        """Seconds a sample of the fastest and of the slowest round."""
        return min(self.rounds)[0], max(self.rounds)[0]


def measured(plans: Sequence[Plan], *, back: bool = False) -> list[Speed]:
    """Ask the first prompts of every model again, one model after the other.

    Args:
        plans: of the models.
        back: visit each once more, in the opposite order. A machine that something else keeps busy for a while so shows in
            the rounds of a model, and not only between models.

    Raises:
        UserError: a model cannot be opened, or its process ended before it had answered.
    """
    visits: dict[int, list[Speed]] = {place: [] for place in range(len(plans))}
    for place in [*visits, *(reversed(visits) if back else ())]:
        again = ", again" if visits[place] else ""
        console.detail(f"speed of model {place + 1} of {len(plans)}{again}: {plans[place].model}")
        visits[place].append(_in_a_process(plans[place].settings))
    return [_joined(each) for each in visits.values()]


def _joined(visits: Sequence[Speed]) -> Speed:
    return Speed(tuple(each for one in visits for each in one.rounds), max(one.memory for one in visits))


def restless(names: Sequence[str], speeds: Sequence[Speed]) -> list[str]:
    """What is told of models whose rounds lie far apart."""
    return [
        f"{name} took {each.between[0]:.3g}–{each.between[1]:.3g} s a sample while it was measured: something else may have run"
        for name, each in zip(names, speeds, strict=True)
        if each.between[1] > _RESTLESS * each.between[0]
    ]


def _in_a_process(settings: Eval) -> Speed:
    import multiprocessing

    from mlops_llm.eval.metrics.latency import Latency

    alone = replace(settings, judge=None, metric={"latency": Latency()}, benchmark=[])
    start = multiprocessing.get_context("spawn")
    ours, theirs = start.Pipe(duplex=False)
    process = start.Process(target=_answer, args=(alone, theirs), daemon=False)
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError as error:
        process.join()
        what = f"the process that measured its speed ended with code {process.exitcode}"
        raise UserError(what, settings.model, "look above for its words, or leave op.measure out") from error
    finally:
        if process.is_alive():
            process.join(10)
            process.terminate()
    if isinstance(found, str):
        raise UserError(f"its speed cannot be measured: {found}", settings.model)
    return Speed(*found)


def _answer(settings: Eval, told: Connection) -> None:
    """In the process: send what was measured, or why it cannot be."""
    try:
        told.send(_measure(settings))
    except UserError as error:
        told.send(str(error))


def _measure(settings: Eval) -> tuple[tuple[tuple[float, float], ...], int]:
    from mlops_llm.eval.opened import Opened
    from mlops_llm.eval.plan import prepare
    from mlops_llm.inference.footprint import Footprint, gpu_peak

    plan = prepare(settings)
    requests, rounds = list(plan.requests[:PROMPTS]), list[tuple[float, int]]()
    with Footprint() as footprint, Opened(plan) as opened:
        for _ in range(1 + REPETITIONS):
            began = time.perf_counter()
            given = [each for _, each in opened.session.generate(requests, settings.sampling, settings.care)]
            rounds.append((time.perf_counter() - began, _tokens(given)))
        gpu = gpu_peak()
    return tuple((took / len(requests), tokens / took) for took, tokens in rounds[1:]), gpu or footprint.peak


def _tokens(given: Sequence[Any]) -> int:
    return sum(each.tokens for each in given if isinstance(each, Generation))
