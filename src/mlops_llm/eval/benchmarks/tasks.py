"""What the names of benchmarks mean, checked before anything is recorded, without importing lm-eval."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.component import name_of, near
from mlops_llm.errors import UserError
from mlops_llm.eval.benchmarks import definitions, official
from mlops_llm.eval.benchmarks.data import Local, local, looked_in
from mlops_llm.eval.benchmarks.definitions import Task
from mlops_llm.eval.config import Eval
from mlops_llm.files import expanded
from mlops_llm.inference.cache import key
from mlops_llm.models import load
from mlops_llm.record import DatasetInput

_FOLDERS = {"gsm8k": "gsm8k", "mmlu": "mmlu/default", "truthfulqa": "truthfulqa", "humaneval": "humaneval"}
"""Where lm-eval keeps the tasks that are found without a scan of all of them."""
_MEANS = {"truthfulqa": ("truthfulqa_mc1", "truthfulqa_mc2")}
"""Names that stand for other tasks here than lm-eval's tag of the name, which also has one that samples."""
_FORM = 3
"""Of what is kept of a result; raised where it gets other fields, so that older ones are not read."""
_BUILDERS = ("json", "csv", "parquet", "text", "arrow")
"""Data sets of these names are files that the task itself names."""


@dataclass(frozen=True)
class Wanted:
    """A benchmark that can be run."""

    name: str
    """As it was asked for; the folder's name and the task's where a folder was."""
    asked: tuple[str, ...]
    """Tasks or groups, as lm-eval is asked for them."""
    folder: Path
    """The task files that these names are looked up in."""
    tasks: tuple[Task, ...]
    """The single tasks behind them."""
    local: Mapping[str, Local] = field(default_factory=dict)
    """Task -> its rows; empty where lm-eval takes them from the hub."""
    warnings: tuple[str, ...] = ()

    @cached_property
    def definition(self) -> str:
        """Digest of the files that define the tasks."""
        files = sorted({file for task in self.tasks for file in task.files})
        return digest.text("\n".join(f"{file.name} {digest.raw(file)}" for file in files))

    def counts(self, limit: int | None) -> dict[str, int]:
        """Task -> items that are asked, where its rows are here."""
        there = {task.name: len(self.local[task.name].rows[task.counted]) for task in self.tasks if task.name in self.local}
        return {name: min(limit or count, count) for name, count in there.items()}

    def shown(self, counts: Mapping[str, int], limit: int | None) -> str:
        """The name with the number of items (of each task) behind it, unless all items of the benchmark are asked.

        Args:
            counts: task -> items asked.
            limit: items of each task at most.
        """
        whole = {task.name: official.items(task) for task in self.tasks}
        short = any(whole[name] not in (None, count) for name, count in counts.items())
        cut = limit is not None and any(count >= limit and whole[name] != count for name, count in counts.items())
        if not short and not cut:
            return self.name
        sizes = set(counts.values())
        return f"{self.name}[{limit if cut else sizes.pop() if len(sizes) == 1 else sum(counts.values())}]"

    def as_input(self, limit: int | None) -> DatasetInput:
        """The rows that are here as the record names them; the context is the benchmark's name in its scores."""
        counts = self.counts(limit)
        name, whence = self.shown(counts, limit), next(iter(self.local.values())).where
        digests = {"canonical": digest.row({task: each.digest for task, each in self.local.items()})}
        return DatasetInput(name, f"task files {self.definition[:12]}", whence, name, sum(counts.values()), digests)

    def key(self, settings: Eval, about: Mapping[str, str]) -> str | None:
        """Of its result in the cache: all that it depends on; None where the rows or the weights are not known before.

        Args:
            settings: the request.
            about: what identifies the model: at least `weights` and `template`; empty of a server's.
        """
        if not self.local or not about.get("weights"):
            return None
        return key(benchmark=self.name, **self.facts(settings), **about)

    def facts(self, settings: Eval) -> dict[str, Any]:
        """What its numbers depend on besides the model."""
        how = settings.benchmarks
        return {
            "form": _FORM,
            "tasks": [task.name for task in self.tasks],
            "definition": self.definition,
            "rows": {name: each.digest for name, each in self.local.items()},
            "limit": settings.limit,
            "few_shot": how.few_shot,
            "chat_template": how.chat_template,
            "system": how.system,
            "seed": settings.seed,
            "engine": [settings.engine.family, settings.engine.decisive],
            "batch_size": settings.sampling.batch_size,
            "dtype": load.dtype_of(settings.model_load.dtype).name,
            "lm_eval": version("lm_eval"),
            "transformers": version("transformers"),
        }


def check(settings: Eval) -> list[Wanted]:
    """Find what the benchmarks of a request are, and their rows as far as they are here.

    Raises:
        UserError: one is unknown (a near one is named), is named twice, runs programs without leave, cannot be asked through
            the engine, or its rows are nowhere.
    """
    found = list[Wanted]()
    folder = _data_folder(settings)
    for name in dict.fromkeys(settings.benchmark):
        for one in _meant(name):
            _check_programs(one, settings)
            _check_engine(one, settings)
            found.append(_with_rows(one, settings, folder))
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"'{twice}' is there twice", "benchmark", "name it once")
    for one in found:
        for warning in one.warnings:
            console.warn(warning)
    return found


def _data_folder(settings: Eval) -> Path | None:
    if settings.benchmarks.data is None:
        return None
    folder = expanded(settings.benchmarks.data).absolute()
    if not folder.is_dir():
        raise UserError("there is no such folder", str(folder), "check benchmarks.data")
    return folder


def _meant(name: str) -> list[Wanted]:
    path = expanded(name)
    if path.is_dir() and ("/" in name or name.startswith((".", "~")) or not _is_known(name)):
        return _of_folder(path.absolute())
    if "/" in name or name.startswith((".", "~")):
        raise UserError("there is no such folder of tasks", name, "check the path")
    root = definitions.shipped()
    for known, place in _FOLDERS.items():
        if name == known or name.startswith((f"{known}_", f"{known}-")):
            names = definitions.index(root / place)
            if name in _MEANS or name in names.names:
                asked = _MEANS.get(name, (name,))
                return [Wanted(name, asked, root / place, tuple(task for each in asked for task in names.tasks(each)))]
    names = definitions.index(root)
    if name not in names.names:
        raise UserError(
            f"unknown benchmark '{name}'{near(name, _FOLDERS) or near(name, names.names)}",
            "benchmark",
            f"take one of {', '.join(_FOLDERS)}, another task of lm-eval, or a folder of tasks (with a slash: ./NAME)",
        )
    tasks = tuple(names.tasks(name))
    files = [task.file for task in tasks] + ([names.files[name]] if name in names.files else [])
    return [Wanted(name, (name,), Path(os.path.commonpath([file.parent for file in files])), tasks)]


def _is_known(name: str) -> bool:
    return name in _FOLDERS or name.startswith(tuple(f"{known}_" for known in _FOLDERS))


def _of_folder(folder: Path) -> list[Wanted]:
    """A folder's groups, and its tasks that belong to none."""
    names = definitions.index(folder)
    behind = {name: tuple(names.tasks(name)) for name in sorted(names.files)}
    groups = {name for name, tasks in behind.items() if (name,) != tuple(task.name for task in tasks)}
    within = {task.name for group in groups for task in behind[group]}
    roots = [name for name in behind if name in groups or name not in within]
    if not roots:
        raise UserError("holds no task files", str(folder), "put lm-eval's YAML files of tasks there")
    return [Wanted(name, (name,), folder, behind[name]) for name in roots]


def _check_programs(one: Wanted, settings: Eval) -> None:
    unsafe = [task for task in one.tasks if task.config.get("unsafe_code")]
    for task in unsafe:
        if task.file.parent != definitions.shipped() / "humaneval":
            remedy = "take humaneval, whose programs are held back here"
            raise UserError(f"{task.name} runs programs that a model wrote, and runs them its own way", "benchmark", remedy)
    if unsafe and not settings.benchmarks.allow_code:
        raise UserError(
            f"{one.name} runs programs that a model wrote: each in its own process with limits on time, memory, files and "
            "processes, but this is no sandbox for hostile code",
            "benchmarks.allow_code",
            "allow it: benchmarks.allow_code=true",
        )


def _check_engine(one: Wanted, settings: Eval) -> None:
    """Engines other than hf tell log-probabilities of tokens, but not which token is the likeliest; chat servers neither."""
    engine = settings.engine
    if engine.family == "hf":
        return
    for task in one.tasks:
        if not engine.local and task.output != "generate_until":
            remedy = "take engine=hf or engine=vllm, or a benchmark that samples answers: gsm8k"
            raise UserError(
                f"{task.name} needs the model's likelihoods, which a chat server does not tell", "benchmark", remedy
            )
        metrics = {str(each.get("metric")) for each in task.config.get("metric_list") or []}
        greedy = task.output == "loglikelihood" or (task.output == "multiple_choice" and "exact_match" in metrics)
        if greedy:
            what = f"{task.name} asks whether an answer is the likeliest, which engine={name_of(engine)} does not tell"
            raise UserError(what, "benchmark", "take engine=hf")
    if not engine.local and not settings.benchmarks.chat_template:
        remedy = "put them as a conversation: benchmarks.chat_template=true"
        raise UserError("is false, and a chat server takes questions only so", "benchmarks.chat_template", remedy)


def _with_rows(one: Wanted, settings: Eval, folder: Path | None) -> Wanted:
    few_shot = settings.benchmarks.few_shot
    found = {task.name: local(task, folder, task.shots(few_shot)) for task in one.tasks}
    rows = {name: each for name, each in found.items() if each is not None}
    missing = [task for task in one.tasks if found[task.name] is None]
    for task in missing:
        _check_hub(task, one, folder)
    if rows and missing:
        where = next(iter(rows.values())).where
        raise UserError(
            f"holds {len(rows)} of the {len(one.tasks)} tasks of {one.name}, not {missing[0].name}", where, "add its files"
        )
    made = Wanted(one.name, one.asked, one.folder, one.tasks, rows)
    return Wanted(one.name, one.asked, one.folder, one.tasks, rows, tuple(_warnings(made, settings)))


def _check_hub(task: Task, one: Wanted, folder: Path | None) -> None:
    """See that rows which are not here can be fetched.

    Raises:
        UserError: a folder is named that does not hold them, or the hub may not be asked and was not before.
    """
    path = task.source
    if path in _BUILDERS or not path:
        return
    remedy = f"put its files there, in a folder named {one.name}, or leave benchmarks.data out" if folder else ""
    if folder:
        raise UserError(f"holds no rows of {task.name} (looked in {looked_in(task, folder)})", str(folder), remedy)
    if _offline() and not _fetched(path):
        raise UserError(
            f"its rows are not here: there is no dataset {looked_in(task, folder)}, and the hub may not be asked for {path}",
            f"benchmark {task.name}",
            "name a folder that holds them (benchmarks.data=DIR), or unset HF_HUB_OFFLINE",
        )


def _offline() -> bool:
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )


def _fetched(path: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    kept = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    return (hub / f"datasets--{path.replace('/', '--')}").is_dir() or (kept / path.replace("/", "___")).is_dir()


def _warnings(one: Wanted, settings: Eval) -> list[str]:
    said, few_shot = [], settings.benchmarks.few_shot
    fixed = [task.name for task in one.tasks if few_shot and task.config.get("num_fewshot") == 0]
    if fixed:
        said.append(f"benchmarks.few_shot={few_shot} does not count for {', '.join(fixed)}: the task fixes 0")
    there = one.counts(None)
    other = {task.name: count for task in one.tasks if (count := official.items(task)) and there.get(task.name, count) != count}
    for name, count in list(other.items())[:3]:
        where = one.local[name].where
        said.append(f"{name}: {there[name]:,} rows in {where}, the data set that the task names has {count:,}")
    if len(other) > 3:
        said.append(f"{one.name}: {len(other) - 3} more tasks have other numbers of rows than their data sets")
    return said
