"""Benchmarks run on an open model by lm-eval's own code, and what they found."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.eval.benchmarks import code
from mlops_llm.eval.benchmarks.book import Book, plain
from mlops_llm.eval.benchmarks.findings import Findings
from mlops_llm.eval.benchmarks.seen import Part
from mlops_llm.eval.benchmarks.tasks import Wanted
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.eval.outcome import Group, Outcome, Sample, Score
from mlops_llm.eval.score import PASSING, Counts
from mlops_llm.files import write_text
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Class, Failure, Session
from mlops_llm.record import Grid

FOLDER = "benchmarks"
"""In the run's folder: what each benchmark found, and while it runs what was answered."""
BOOTSTRAP = 100_000
"""Draws for standard errors of totals that are no means: lm-eval's own number."""
_ROWS = 8
"""Items that are named for each cause."""


@dataclass(frozen=True)
class Found:
    """What a benchmark found."""

    name: str
    """With the number of items behind it (`gsm8k[50]`) unless all were asked."""
    scores: Sequence[Score]
    samples: Sequence[Sample]
    groups: Sequence[Group]
    """The single tasks of a benchmark of several, such as MMLU's subjects."""
    facts: Mapping[str, str]
    warnings: Sequence[str]
    results: Mapping[str, Any]
    """lm-eval's own tables, as its command writes them."""
    counts: Counts = field(default_factory=lambda: Counts(0, 0, 0))
    """Requests that were asked, known from before, and of this run before it stopped."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Name of a score -> what it is made of."""


def run(
    one: Wanted,
    settings: Eval,
    opened: Callable[[], Session],
    folder: Path,
    about: Mapping[str, str],
    answers: Answers | None = None,
) -> Found:
    """Run a benchmark, unless its result is known.

    Args:
        one: what `tasks.check` found.
        settings: the request.
        opened: opens the model, if it is not open; not called where the result is known.
        folder: of the run's files; what was answered is kept there, so that a killed benchmark goes on.
        about: what identifies the model: at least `weights` and `template`; empty of a server's.
        answers: the cache of results.

    Raises:
        UserError: rows cannot be fetched, a task asks what the engine does not tell, or no request can be answered.
    """
    known = one.key(settings, about)
    stem = f"{_file(one.name)}-{(known or digest.row({**one.facts(settings), **about}))[:12]}"
    result = folder / FOLDER / f"{stem}.json"
    done = _read(json.loads(result.read_text("utf-8")), "resumed") if result.is_file() else None
    if done and not any(each.failure and each.failure.kind.value in PASSING for each in done.samples):
        return done
    kept = answers.get(known) if answers and known and settings.cache is Cache.on else None
    if kept:
        write_text(result, json.dumps(kept, ensure_ascii=False), "backslashreplace")
        return _read(kept, "cached")
    found = _asked(one, settings, opened(), folder / FOLDER / f"{stem}.jsonl", about)
    row = dataclasses.asdict(found)
    for sample in row["samples"]:
        if sample["failure"]:
            sample["failure"]["kind"] = sample["failure"]["kind"].value
    write_text(result, json.dumps(row, ensure_ascii=False), "backslashreplace")
    if answers and known and not any(each.failure for each in found.samples):
        answers.put(known, row)
    return found


def _read(row: Mapping[str, Any], whence: str) -> Found:
    """What was found before; none of it was asked now."""
    samples = [Sample(**{**each, "failure": each["failure"] and _failure(each["failure"])}) for each in row["samples"]]
    scores = [Score(**{**each, "interval": each["interval"] and tuple(each["interval"])}) for each in row["scores"]]
    groups = [Group(**each) for each in row["groups"]]
    total = sum(row["counts"].values())
    counts = Counts(0, **{"cached": 0, "resumed": 0, whence: total})
    parts = {name: Part(**each) for name, each in row["parts"].items()}
    return Found(row["name"], scores, samples, groups, row["facts"], row["warnings"], row["results"], counts, parts)


def _failure(row: Mapping[str, Any]) -> Failure:
    return Failure(**{**row, "kind": Class(row["kind"])})


def _asked(one: Wanted, settings: Eval, session: Session, file: Path, about: Mapping[str, str]) -> Found:
    if any(task.config.get("unsafe_code") for task in one.tasks):
        code.check()
    console.detail(f"{one.name}: loading lm-eval")
    building = importlib.import_module("mlops_llm.eval.benchmarks.building")
    lm = importlib.import_module("mlops_llm.eval.benchmarks.lm")
    evaluator = importlib.import_module("lm_eval.evaluator")
    how, warnings = settings.benchmarks, list(one.warnings)
    book, programs = Book(file, one.name), building.Programs()
    try:
        with _quiet(lm):
            loaded = building.loaded(one, how.few_shot, settings.seed, programs)
            model = lm.model(session, settings.sampling, settings.care, settings.seed, settings.engine.local, book)
            warnings += _capped(loaded["tasks"], model)
            _seed(settings.seed)
            results = evaluator.evaluate(
                lm=model,
                task_dict=loaded,
                limit=settings.limit,
                bootstrap_iters=BOOTSTRAP,
                log_samples=True,
                system_instruction=how.system or None,
                apply_chat_template=how.chat_template,
                fewshot_as_multiturn=True,
                confirm_run_unsafe_code=how.allow_code,
            )
    finally:
        book.close()
    told = Findings(one, settings, results, about.get("template", ""), _alike(loaded["groups"]))
    tables = plain({name: value for name, value in results.items() if name != "samples"})
    samples, counts = told.samples(book, model.tokenizer, programs.cause), Counts(book.asked, 0, book.resumed)
    scores = told.scores(samples)
    late = [
        f"{each.name} is no number: the model finds every choice of an item impossible" for each in scores if isnan(each.value)
    ]
    if book.cut:
        late.append(f"{one.name}: {len(book.cut)} prompts are longer than the model takes and lost their beginning")
    for each in late:
        console.warn(each)
    parts = told.parts()
    return Found(told.name, scores, samples, told.groups(), told.facts(), [*warnings, *late], tables, counts, parts)


def _alike(groups: Mapping[str, Any]) -> dict[str, set[str]]:
    """Group of lm-eval -> metrics that are means over its tasks and not over their items."""
    every = [each for group in groups.values() for each in (group, *group.get_all_groups())]
    return {each.name: {one.metric for one in each.aggregate_metric_list or () if not one.weight_by_size} for each in every}


def _capped(tasks: Mapping[str, Any], model: Any) -> list[str]:
    """Shorten answers for which the model has no room at all; lm-eval would stop there."""
    said = []
    for name, task in tasks.items():
        if task.get_config("output_type") != "generate_until":
            continue
        most = int((task.get_config("generation_kwargs") or {}).get("max_gen_toks", 256))
        if most >= model.max_length:
            room = model.max_length // 2
            task.set_config(key="generation_kwargs", value={"max_gen_toks": room}, update=True)
            said.append(f"{name}: answers have at most {room} tokens, not {most}: the model's window is {model.max_length}")
            console.warn(said[-1])
    return said


def _seed(seed: int) -> None:
    """As lm-eval seeds itself; the request's seed is added to its own."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed((1234 + seed) % 2**32)
    torch.manual_seed(1234 + seed)


@contextmanager
def _quiet(lm: Any) -> Iterator[None]:
    """Bars of lm-eval show nothing: the progress is told by the book. It warns of every prompt that is cut; we count them."""
    names = ("lm_eval.api.task", "lm_eval.api.model", "lm_eval.models.huggingface")
    before = lm.quiet(importlib.import_module(name) for name in names)
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for module, bar in before:
            module.tqdm = bar


def added(outcome: Outcome, found: Sequence[Found]) -> Outcome:
    """An outcome with what benchmarks found behind its own scores."""
    return dataclasses.replace(
        outcome,
        scores=[*outcome.scores, *(score for one in found for score in one.scores)],
        samples=[*outcome.samples, *(sample for one in found for sample in one.samples)],
        groups=[*outcome.groups, *(group for one in found for group in one.groups)],
        tables={
            **outcome.tables,
            **{f"{FOLDER}/{_file(one.name)}-causes.json": grid for one in found if (grid := _causes(one))},
        },
        facts={
            **outcome.facts,
            **{one.name: "; ".join(f"{key}: {value}" for key, value in one.facts.items()) for one in found},
        },
        warnings=[*outcome.warnings, *(warning for one in found for warning in one.warnings)],
    )


def _causes(found: Found) -> Grid | None:
    """How often programs failed of what; None where none was run, or all passed."""
    places = dict[str, list[int]]()
    for each in found.samples:
        if each.comment:
            places.setdefault(each.comment.partition(":")[0], []).append(each.place + 1)
    rows = [
        [cause, len(rows), ", ".join(map(str, rows[:_ROWS])) + (", …" if len(rows) > _ROWS else "")]
        for cause, rows in sorted(places.items(), key=lambda each: -len(each[1]))
    ]
    return Grid(f"{found.name}: why programs did not pass", ["cause", "items", "rows"], rows) if rows else None


def _file(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.-]+", "_", name).strip("_")
