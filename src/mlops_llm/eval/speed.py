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
"""What each model is asked, and how often after a first time that does not count."""


@dataclass(frozen=True)
class Speed:
    """What was measured of one model."""

    seconds: float
    """A sample, of a batch its share: median over the repetitions."""
    tokens: float
    """Each second: median over the repetitions."""
    memory: int
    """Most bytes that the process and its children held; on a GPU the most that torch held there."""


def measured(plans: Sequence[Plan]) -> list[Speed]:
    """Ask the first prompts of every model again, one model after the other.

    Raises:
        UserError: a model cannot be opened, or its process ended before it had answered.
    """
    found = []
    for place, plan in enumerate(plans, 1):
        console.detail(f"speed of model {place} of {len(plans)}: {plan.model}")
        found.append(_in_a_process(plan.settings))
    return found


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


def _measure(settings: Eval) -> tuple[float, float, int]:
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
    counted = rounds[1:]
    seconds = statistics.median(took / len(requests) for took, _ in counted)
    return seconds, statistics.median(tokens / took for took, tokens in counted), gpu or footprint.peak


def _tokens(given: Sequence[Any]) -> int:
    return sum(each.tokens for each in given if isinstance(each, Generation))
