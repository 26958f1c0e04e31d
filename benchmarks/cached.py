"""What an evaluation of `smollm2` costs when all its answers are known from before, in alternating pairs.

24 short questions of the shop, 16 new tokens at most, engine hf. `loop` is what asks: from the requests to all answers in the
run's file and in the cache, the model open before it begins; known answers need no model. `evaluation` is all that the command
does between reading its request and recording what it found: also scores with their intervals, and the look for questions that
the model was trained on; opening the model is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from stats import Run, alternate, compare, interval, scratch

from mlops_llm.component import build, load
from mlops_llm.eval.config import PACKAGES, Eval
from mlops_llm.eval.evaluation import evaluate
from mlops_llm.eval.opened import Opened
from mlops_llm.eval.plan import Plan, prepare
from mlops_llm.eval.score import generation, scored
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Sampling
from mlops_llm.models.tiny import corpus
from mlops_llm.record import MemoryRun

WANTED = {"loop ms": "ratio at most 0.01"}


def asked(model: str, questions: int, tokens: int) -> Eval:
    """The request; its rows lie in the current folder."""
    for package in PACKAGES:
        load(package)
    rows = [{"prompt": each.prompt, "reference": each.response} for each in corpus.exchanges(1, questions)]
    Path("rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    how = Sampling(max_new_tokens=tokens)
    metrics = {name: build("metric", name) for name in ("bleu", "exact_match")}
    return Eval(op=None, model=model, dataset="rows.jsonl", metric=metrics, engine=build("engine", "hf"), sampling=how)


def looped(plan: Plan, session: Any, folder: Path) -> float:
    """Seconds of the loop; without a session none may be needed."""

    def ask(places: Sequence[int]) -> Iterable[tuple[int, Any]]:
        requests = [plan.requests[place] for place in places]
        return session.generate(requests, plan.settings.sampling, plan.settings.care)

    began = time.perf_counter()
    answers = Answers()
    scored(
        plan.keys(),
        ask,
        generation,
        folder / "answers.jsonl",
        what="answers",
        answers=answers,
    )
    answers.close()
    return time.perf_counter() - began


def evaluated(plan: Plan, folder: Path) -> float:
    """Seconds of the evaluation, as its record says them."""
    plan.settings.output, run = str(folder), MemoryRun()
    evaluate(plan, run)
    return next(value for name, value, *_ in run.kept_metrics if name == "perf/seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=16)
    given = parser.parse_args()
    with scratch() as folder:
        os.chdir(folder)
        plan, numbers = prepare(asked(given.model, given.questions, given.tokens)), count()

        def side(session: Any, cache: str) -> Run:
            """A side whose caches are new each time, or those of one name."""

            def run() -> dict[str, float]:
                found, number = {}, next(numbers)
                for name, took in {
                    "loop ms": lambda place: looped(plan, session, place),
                    "evaluation ms": lambda place: evaluated(plan, place),
                }.items():
                    place = folder / f"{number}-{name.split()[0]}"
                    os.environ["MLOPS_LLM_CACHE"] = cache or str(place / "cache")
                    found[name] = 1000 * took(place)
                return found

            return run

        with Opened(plan) as opened:
            runs = {"first": side(opened.session, ""), "again": side(None, str(folder / "kept"))}
            side(opened.session, str(folder / "kept"))()
            found = alternate(given.pairs, runs)
    compare(f"{given.model}, {given.questions} questions", found, WANTED)
    times = [first["loop ms"] / again["loop ms"] for first, again in zip(found["first"], found["again"], strict=True)]
    low, high = interval(times)
    print(f"the loop is {statistics.median(times):,.0f} times as fast (95 % interval {low:,.0f} to {high:,.0f}); wanted: 100")


if __name__ == "__main__":
    main()
