"""Benchmarks run on an open model by lm-eval's own code, and what they found."""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.eval.benchmarks import code
from mlops_llm.eval.benchmarks.book import Book, plain
from mlops_llm.eval.benchmarks.tasks import Wanted
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.eval.outcome import Group, Sample, Score
from mlops_llm.eval.score import Counts
from mlops_llm.files import write_text
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Class, Failure, Session

FOLDER = "benchmarks"
"""In the run's folder: what each benchmark found, and while it runs what was answered."""
BOOTSTRAP = 100_000
"""Draws for standard errors of totals that are no means: lm-eval's own number."""


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
    stem = f"{re.sub(r'[^0-9A-Za-z_.-]+', '_', one.name)}-{(known or digest.row(one.facts(settings)))[:12]}"
    result = folder / FOLDER / f"{stem}.json"
    if result.is_file():
        return _read(json.loads(result.read_text("utf-8")), "resumed")
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
    samples = [
        Sample(
            **{**each, "failure": each["failure"] and Failure(**{**each["failure"], "kind": Class(each["failure"]["kind"])})}
        )
        for each in row["samples"]
    ]
    scores = [Score(**{**each, "interval": each["interval"] and tuple(each["interval"])}) for each in row["scores"]]
    groups = [Group(**each) for each in row["groups"]]
    total = sum(row["counts"].values())
    counts = Counts(0, **{"cached": 0, "resumed": 0, whence: total})
    return Found(row["name"], scores, samples, groups, row["facts"], row["warnings"], row["results"], counts)


def _asked(one: Wanted, settings: Eval, session: Session, file: Path, about: Mapping[str, str]) -> Found:
    if any(task.config.get("unsafe_code") for task in one.tasks):
        code.check()
    console.detail(f"{one.name}: loading lm-eval")
    building = importlib.import_module("mlops_llm.eval.benchmarks.building")
    lm = importlib.import_module("mlops_llm.eval.benchmarks.lm")
    evaluator = importlib.import_module("lm_eval.evaluator")
    how, warnings = settings.benchmarks, list(one.warnings)
    loaded = building.loaded(one, how.few_shot, settings.seed)
    book = Book(file, one.name)
    try:
        model = lm.model(session, settings.sampling, settings.care, settings.seed, settings.engine.local, book)
        warnings += _capped(loaded["tasks"], model)
        _seed(settings.seed)
        with _quiet(lm):
            results = evaluator.evaluate(
                model,
                loaded,
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
    if model.cut:
        warnings.append(
            f"{one.name}: {model.cut} of {book.asked} prompts are longer than the model takes and lost their beginning"
        )
    return _found(one, settings, results, book, model, about, warnings)


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
    """Bars of lm-eval show nothing: the progress is told by the book."""
    names = ("lm_eval.api.task", "lm_eval.api.model", "lm_eval.models.huggingface")
    before = lm.quiet(importlib.import_module(name) for name in names)
    try:
        yield
    finally:
        for module, bar in before:
            module.tqdm = bar


def _found(
    one: Wanted,
    settings: Eval,
    results: Mapping[str, Any],
    book: Book,
    model: Any,
    about: Mapping[str, str],
    warnings: Sequence[str],
) -> Found:
    asked = {name: int(each["effective"]) for name, each in results["n-samples"].items()}
    shown = one.shown(asked, settings.limit)
    samples, values = list[Sample](), dict[str, dict[str, list[Any]]]()
    for name, rows in results["samples"].items():
        made, values[name] = _samples(name, rows, one, book, model)
        samples += made
    signature = _signature(one, settings, results, about)
    leaves = {task.name for task in one.tasks}
    groups = {name for name in results["results"] if name not in leaves}
    for name in groups:
        values[name] = _pooled(values, [task for task in one.tasks if _is_within(task.name, name, results["group_subtasks"])])
    tables = {name: each for name, each in results["results"].items() if name in groups or not groups}
    scores = [
        score for name, each in tables.items() for score in _scores(one, shown, name, each, values[name], results, signature)
    ]
    facts = _facts(one, settings, results, about, asked)
    counts = Counts(book.asked, 0, book.resumed)
    return Found(shown, scores, samples, _groups(one, results, groups), facts, warnings, plain(_tables(results)), counts)


def _is_within(task: str, group: str, children: Mapping[str, Sequence[str]]) -> bool:
    return any(child == task or _is_within(task, child, children) for child in children.get(group, ()))


def _pooled(values: Mapping[str, Mapping[str, list[Any]]], tasks: Sequence[Any]) -> dict[str, list[Any]]:
    made = dict[str, list[Any]]()
    for task in tasks:
        for name, each in values.get(task.name, {}).items():
            made.setdefault(name, []).extend(each)
    return made


def _samples(
    name: str, rows: Sequence[Mapping[str, Any]], one: Wanted, book: Book, model: Any
) -> tuple[list[Sample], dict[str, list[Any]]]:
    """A task's items, and by `metric,filter` their values."""
    task, values = next(each for each in one.tasks if each.name == name), dict[str, list[Any]]()
    by_item = dict[int, list[Mapping[str, Any]]]()
    for row in rows:
        by_item.setdefault(int(row["doc_id"]), []).append(row)
    filters = list(dict.fromkeys(str(row["filter"]) for row in rows))
    made = []
    for place, found in by_item.items():
        scores = dict[str, float]()
        for row in found:
            for metric in row["metrics"]:
                values.setdefault(f"{metric},{row['filter']}", []).append(row[metric])
                if isinstance(row[metric], int | float) or hasattr(row[metric], "item"):
                    scores[_metric(metric, str(row["filter"]), filters)] = float(row[metric])
        made.append(_sample(task, place, found[0], scores, book, model))
    return made, values


def _sample(task: Any, place: int, row: Mapping[str, Any], scores: dict[str, float], book: Book, model: Any) -> Sample:
    requests, kind = row["arguments"], "generate_until" if task.output == "generate_until" else task.output
    told = [book.about("loglikelihood" if kind == "multiple_choice" else kind, args) for args in requests]
    answer, references, tokens = "", [str(row["target"])], 0
    if kind == "multiple_choice":
        offered = importlib.import_module("mlops_llm.eval.benchmarks.lm").choices(requests)
        likely = [float(each[0][0]) for each in row["resps"]]
        answer = offered[max(range(len(offered)), key=likely.__getitem__)]
        right = row["target"] if isinstance(row["target"], list) else [row["target"]]
        references = [offered[each] if isinstance(each, int) and 0 <= each < len(offered) else str(each) for each in right]
    elif kind == "generate_until":
        answer = str(row["resps"][0][0])
        tokens = len(model.tokenizer(answer, add_special_tokens=False)["input_ids"]) if model.tokenizer and answer else 0
        references = [str(each) for each in row["target"]] if isinstance(row["target"], list) else references
    prompt = str(requests[0][0])
    return Sample(
        place,
        prompt,
        answer,
        references,
        metadata={"benchmark": task.name},
        scores=scores,
        failure=next((each.failure for each in told if each.failure), None),
        seconds=sum(each.seconds for each in told),
        tokens=tokens,
    )


def _metric(metric: str, filtered: str, filters: Sequence[str]) -> str:
    """A value's name; the filter's behind it where there are several."""
    return f"{metric}/{filtered}" if len(filters) > 1 else metric


def _scores(
    one: Wanted,
    shown: str,
    name: str,
    table: Mapping[str, Any],
    values: Mapping[str, list[Any]],
    results: Mapping[str, Any],
    signature: str,
) -> list[Score]:
    keys = [key for key, value in table.items() if "," in key and "_stderr," not in key and isinstance(value, int | float)]
    filters = list(dict.fromkeys(key.rpartition(",")[2] for key in keys))
    part = "" if name == one.name or len(one.asked) == len(one.tasks) == 1 else f"{_short(name, one.name)}/"
    better = results["higher_is_better"].get(name) or {}
    made = []
    for key in keys:
        metric, _, filtered = key.rpartition(",")
        error = table.get(f"{metric}_stderr,{filtered}")
        value = float(table[key])
        interval = _interval(value, error if isinstance(error, int | float) else None, values.get(key, []))
        count = int(table.get("sample_len") or len(values.get(key, [])))
        label = f"{shown}/{part}{_metric(metric, filtered, filters)}"
        made.append(Score(label, value, count, better.get(metric), interval, f"{signature}|filter:{filtered}"))
    return made


def _short(name: str, whole: str) -> str:
    return name.removeprefix(f"{whole}_")


def _interval(value: float, error: float | None, items: Sequence[Any]) -> tuple[float, float] | None:
    """Wilson's or the bootstrap's where the value is the mean of the items', else 1.96 of lm-eval's standard errors."""
    from mlops_llm.eval.interval import of_mean

    numbers = [float(each) for each in items if isinstance(each, int | float) or hasattr(each, "item")]
    if len(numbers) == len(items) > 1 and abs(sum(numbers) / len(numbers) - value) < 1e-9:
        return of_mean(numbers)
    return (value - 1.959964 * error, value + 1.959964 * error) if error is not None else None


def _groups(one: Wanted, results: Mapping[str, Any], groups: set[str]) -> list[Group]:
    if not groups:
        return []
    made = []
    for task in one.tasks:
        table = results["results"][task.name]
        scores = {key.rpartition(",")[0]: float(value) for key, value in table.items() if _is_value(key, value)}
        made.append(Group(one.name, _short(task.name, one.name), int(table["sample_len"]), scores))
    return made


def _is_value(key: str, value: Any) -> bool:
    return "," in key and "_stderr," not in key and isinstance(value, int | float)


def _signature(one: Wanted, settings: Eval, results: Mapping[str, Any], about: Mapping[str, str]) -> str:
    shots = sorted({int(results["n-shot"].get(task.name, 0)) for task in one.tasks})
    versions = sorted({str(results["versions"].get(task.name)) for task in one.tasks})
    template = (about.get("template", "")[:12] or "server's") if settings.benchmarks.chat_template else "none"
    parts = {
        "lm-eval": one.facts(settings)["lm_eval"],
        "task": one.definition[:12],
        "version": "+".join(versions),
        "shots": "+".join(map(str, shots)),
        "template": template,
        "system": digest.text(settings.benchmarks.system)[:12] if settings.benchmarks.system else "none",
        "seed": settings.seed,
    }
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def _facts(
    one: Wanted, settings: Eval, results: Mapping[str, Any], about: Mapping[str, str], asked: Mapping[str, int]
) -> dict[str, str]:
    """What a person wants to know of how it was run."""
    shots = sorted({int(results["n-shot"].get(task.name, 0)) for task in one.tasks})
    how = settings.benchmarks
    where = sorted({each.where for each in one.local.values()}) or [str(one.tasks[0].config.get("dataset_path"))]
    each = f", {settings.limit} of each" if settings.limit and len(one.tasks) > 1 else ""
    filters = [str(each.get("name")) for each in one.tasks[0].config.get("filter_list") or []]
    kwargs = next(iter(results["configs"].values())).get("generation_kwargs")
    facts = {
        "items": f"{sum(asked.values()):,}" + (f" in {len(one.tasks)} tasks{each}" if len(one.tasks) > 1 else ""),
        "few-shot": ", ".join(map(str, shots)),
        "chat template": (about.get("template", "")[:12] or "the server's") if how.chat_template else "none",
        "system prompt": how.system or "none",
        "filters": ", ".join(filters) or "none",
        "sampling": json.dumps(plain(kwargs), ensure_ascii=False) if kwargs else "",
        "rows": ", ".join(where),
        "lm-eval": f"{one.facts(settings)['lm_eval']}, task files {one.definition[:12]}",
    }
    if any(task.config.get("unsafe_code") for task in one.tasks):
        facts["programs"] = code.held_back()
    return {name: value for name, value in facts.items() if value}


def _tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's results without the items."""
    return {name: value for name, value in results.items() if name != "samples"}
