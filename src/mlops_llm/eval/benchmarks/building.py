"""lm-eval's own tasks, made from their files and our rows. Imported late: lm-eval takes ten seconds."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError, first_line
from mlops_llm.eval.benchmarks import code
from mlops_llm.eval.benchmarks.data import Local
from mlops_llm.eval.benchmarks.definitions import Task
from mlops_llm.eval.benchmarks.tasks import Wanted

FEW_SHOT_SEED = 1234
"""lm-eval's own, to which the request's seed is added: seed 0 draws the worked examples that everybody has."""


def loaded(one: Wanted, few_shot: int | None, seed: int, programs: Programs) -> dict[str, Any]:
    """lm-eval's tasks and groups, as its `TaskManager.load` gives them, ready to be asked.

    Args:
        one: what is to be asked.
        few_shot: worked examples; None keeps each task's own number.
        seed: added to lm-eval's own.
        programs: runs those that a model writes.

    Raises:
        UserError: the rows cannot be had from the hub, or a task's file is wrong.
    """
    tasks = importlib.import_module("lm_eval.tasks")
    manager = tasks.TaskManager(include_path=str(one.folder), include_defaults=False)
    try:
        built = [each for name in one.asked for each in _built(one, name, manager, programs)]
        found: dict[str, Any] = manager.load(built)
    except UserError:
        raise
    except Exception as error:
        where = "its rows cannot be fetched" if not one.local else "lm-eval cannot make it"
        remedy = "name a folder that holds its rows: benchmarks.data=DIR" if not one.local else "mend the task's file"
        raise UserError(f"{where} ({first_line(error)})", f"benchmark {one.name}", remedy) from error
    for task in found["tasks"].values():
        own = task.get_config("num_fewshot")
        if few_shot is not None and own != 0:
            task.set_config(key="num_fewshot", value=few_shot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEW_SHOT_SEED + seed)
    return found


def _built(one: Wanted, name: str, manager: Any, programs: Programs) -> list[Any]:
    unsafe = [task for task in one.tasks if task.config.get("unsafe_code")]
    if unsafe:
        return [_of_programs(task, one.local.get(task.name), programs) for task in unsafe]
    by_file = {str(task.file): one.local[task.name] for task in one.tasks if task.name in one.local}

    def rows(*, config_source: str, **_: Any) -> Any:
        return _splits(by_file[config_source])

    overrides = {"custom_dataset": rows} if by_file else {}
    index = manager.task_index
    if name not in index:
        raise UserError(f"lm-eval finds no task '{name}' there", str(one.folder), "mend the task's file")
    found = manager._factory.build(index[name], overrides=overrides, registry=index)
    return found if isinstance(found, list) else [found]


def _splits(local: Local) -> Any:
    import datasets

    return datasets.DatasetDict({split: datasets.Dataset.from_list(list(rows)) for split, rows in local.rows.items()})


def _of_programs(task: Task, local: Local | None, programs: Programs) -> Any:
    """HumanEval as its file defines it, but for what runs the programs: lm-eval's takes that from the hub."""
    yaml_loader = importlib.import_module("lm_eval.tasks._yaml_loader")
    api = importlib.import_module("lm_eval.api.task")
    config: dict[str, Any] = yaml_loader.load_yaml(task.file, resolve_func=False)
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    for metric in config["metric_list"]:
        metric["metric"] = _replaced(metric["metric"], {"pass_at_k": programs.pass_at_k}, task)
    made = {"build_predictions": programs.build, "build_predictions_instruct": programs.build_instruct}
    for each in config["filter_list"]:
        for step in each["filter"]:
            if "filter_fn" in step:
                step["filter_fn"] = _replaced(step["filter_fn"], made, task)
    if local is not None:
        config["custom_dataset"] = lambda **_: _splits(local)
    return api.ConfigurableTask(config=config)


def _replaced(name: str, ours: Mapping[str, Any], task: Task) -> Any:
    last = str(name).rpartition(".")[2]
    if last not in ours:
        raise UserError(f"calls '{last}', for which there is nothing here", str(task.file), "take benchmark=[humaneval]")
    return ours[last]


class Programs:
    """Filter and metric of HumanEval: programs are made of answers, and run all at once as soon as they are made."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ran: dict[str, code.Ran] = {}

    def build(self, resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[str]]:
        """The prompt with each answer behind it."""
        return self._build(resps, docs)

    def build_instruct(self, resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[str]]:
        """As `build`, with the answer up to the end of its code block."""
        return self._build([[each.partition("```")[0] for each in answers] for answers in resps], docs)

    def _build(self, resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[str]]:
        made = [[doc["prompt"] + answer for answer in answers] for answers, doc in zip(resps, docs, strict=True)]
        tests = [f"{doc['test']}\ncheck({doc['entry_point']})" for doc in docs]
        self._run([f"{each}\n{test}" for programs, test in zip(made, tests, strict=True) for each in programs])
        return made

    def pass_at_k(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] | int
    ) -> dict[str, float]:
        """The chance that one of k programs passes (Chen et al. 2021, arXiv:2107.03374, equation 1), mean over questions."""
        wanted = [k] if isinstance(k, int) else list(k)
        passed = []
        for test, programs in zip(references, predictions, strict=True):
            texts = [f"{each}\n{test}" for each in programs]
            self._run(texts)
            passed.append((sum(self._ran[each].passed for each in texts), len(texts)))
        fewest = min(count for _, count in passed)
        return {
            f"pass@{each}": sum(_pass_at(each, hits, count) for hits, count in passed) / len(passed)
            for each in wanted
            if each <= fewest
        }

    def _run(self, programs: Sequence[str]) -> None:
        new = [each for each in dict.fromkeys(programs) if each not in self._ran]
        if not new:
            return
        progress = console.Progress("programs", len(new))
        try:
            self._ran |= dict(zip(new, code.run(new, progress.at), strict=True))
        finally:
            progress.close()

    def cause(self, program: str) -> str:
        """Why a program, with its test behind it, did not pass; empty of one that did."""
        return self._ran[program].cause if program in self._ran else ""


def _pass_at(k: int, hits: int, count: int) -> float:
    return 1.0 - math.prod(1.0 - k / each for each in range(count - hits + 1, count + 1)) if count - hits >= k else 1.0
