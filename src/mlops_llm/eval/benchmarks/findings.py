"""What lm-eval found, as scores, samples and facts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

from mlops_llm import digest
from mlops_llm.eval.benchmarks import code
from mlops_llm.eval.benchmarks.book import Book
from mlops_llm.eval.benchmarks.definitions import Task
from mlops_llm.eval.benchmarks.seen import Part, asked
from mlops_llm.eval.benchmarks.tasks import Wanted
from mlops_llm.eval.config import Eval
from mlops_llm.eval.interval import of_mean
from mlops_llm.eval.outcome import Group, Sample, Score

_Z = 1.959963984540054
_Values = dict[str, list[Any]]
"""`metric,filter` -> its value of each item."""


@dataclass(frozen=True)
class Findings:
    """One benchmark's results, to be told."""

    one: Wanted
    settings: Eval
    results: Mapping[str, Any]
    """What lm-eval's `evaluate` gives."""
    template: str
    """Digest of the model's chat template; empty where only a server knows it."""
    alike: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Group -> metrics in which each of its tasks counts alike, whatever its size."""

    @property
    def asked(self) -> dict[str, int]:
        """Task -> items asked."""
        return {name: int(each["effective"]) for name, each in self.results["n-samples"].items()}

    @property
    def name(self) -> str:
        """The benchmark's name, with the number of items unless all were asked."""
        return self.one.shown(self.asked, self.settings.limit)

    def samples(self, book: Book, tokenizer: Any, cause: Callable[[str], str]) -> list[Sample]:
        """Every item, a task's after the other's, each in its task's order.

        Args:
            book: what was answered.
            tokenizer: counts an answer's tokens; None where only a server knows it.
            cause: why a program with its test did not pass.
        """
        made = []
        for task in self.one.tasks:
            by_item = dict[int, list[Mapping[str, Any]]]()
            for row in self.results["samples"][task.name]:
                by_item.setdefault(int(row["doc_id"]), []).append(row)
            name = partial(self._name, self._widest(task.name))
            made += [_sample(task, place, rows, book, tokenizer, cause, name) for place, rows in by_item.items()]
        return made

    def scores(self, samples: Sequence[Sample]) -> list[Score]:
        """The values of all tasks, or of the groups where there are any: single tasks are in `groups` then.

        Args:
            samples: of `samples`; lm-eval scores one without an answer as an empty answer.
        """
        failed = {(each.task, each.place) for each in samples if each.failure}
        return [score for name, tasks in self._tables().items() for score in self._scores(name, tasks, failed)]

    def parts(self) -> dict[str, Part]:
        """Name of a score -> what it is made of."""
        return {
            self._name(name, label): Part(
                self._name(self._widest(tasks[0]), label), tasks, metric not in self.alike.get(name, ())
            )
            for name, tasks in self._tables().items()
            for _, metric, label in self._keys(name)
        }

    def groups(self) -> list[Group]:
        """The single tasks where there is a group of them."""
        tables = self.results["results"]
        if not set(tables) - {task.name for task in self.one.tasks}:
            return []
        made = []
        for task in self.one.tasks:
            scores = {key.rpartition(",")[0]: float(value) for key, value in tables[task.name].items() if _is_score(key, value)}
            made.append(Group(self.one.name, self._short(task.name), self.asked[task.name], scores))
        return made

    def facts(self) -> dict[str, str]:
        """What a person wants to know of how it was run."""
        one, how = self.one, self.settings.benchmarks
        count, asked = len(one.tasks), self.asked
        each = f", {self.settings.limit} of each at most" if self.settings.limit and count > 1 else ""
        filters = dict.fromkeys(str(each["name"]) for task in one.tasks for each in task.config.get("filter_list") or [])
        kwargs = dict.fromkeys(json.dumps(_sampling(each), ensure_ascii=False) for each in self.results["configs"].values())
        facts = {
            "items": f"{sum(asked.values()):,}" + (f" in {count} tasks{each}" if count > 1 else ""),
            "few-shot": self._shots(),
            "chat template": (self.template[:12] or "the server's") if how.chat_template else "none",
            "system prompt": how.system or "none",
            "filters": ", ".join(filters) or "none",
            "sampling": " ".join(each for each in kwargs if each != "null"),
            "rows": ", ".join(sorted({each.where for each in one.local.values()}))
            or str(one.tasks[0].config.get("dataset_path")),
            "lm-eval": f"{version('lm_eval')}, task files {one.definition[:12]}",
            "programs": code.held_back() if any(task.config.get("unsafe_code") for task in one.tasks) else "",
        }
        return {name: value for name, value in facts.items() if value}

    def _values(self, tasks: Sequence[str], left_out: Collection[tuple[str, int]] = ()) -> _Values:
        """Of some tasks together."""
        made = _Values()
        for name in tasks:
            for row in self.results["samples"][name]:
                for metric in row["metrics"] if (name, int(row["doc_id"])) not in left_out else ():
                    made.setdefault(f"{metric},{row['filter']}", []).append(row[metric])
        return made

    def _scores(self, name: str, tasks: Sequence[str], failed: Collection[tuple[str, int]]) -> list[Score]:
        table = self.results["results"][name]
        better = self.results["higher_is_better"].get(name) or {}
        values, answered = self._values(tasks), self._values(tasks, failed) if failed else {}
        made = []
        for key, metric, label in self._keys(name):
            filtered = key.rpartition(",")[2]
            value, count = float(table[key]), int(table["sample_len"])
            interval = _interval(value, table.get(f"{metric}_stderr,{filtered}"), values.get(key, []))
            signature = f"{self._signature()}|filter:{filtered}"
            alone = _mean(answered.get(key, [])) if _is_mean(value, values.get(key, [])) else None
            made.append(Score(self._name(name, label), value, count, better.get(metric), interval, signature, answered=alone))
        return made

    def _tables(self) -> dict[str, list[str]]:
        """Groups, the whole first, each with the tasks within it; the tasks where there is no group."""
        leaves, children = [task.name for task in self.one.tasks], self.results["group_subtasks"]
        above = sorted((name for name in self.results["results"] if name not in leaves), key=lambda name: name != self.one.name)
        within = {name: [task for task in leaves if _is_within(task, name, children)] for name in above}
        return within or {name: [name] for name in leaves}

    def _keys(self, name: str) -> list[tuple[str, str, str]]:
        """`metric,filter`, metric and label of each value of a task or group."""
        keys = [key for key, value in self.results["results"][name].items() if _is_score(key, value)]
        several = len({key.rpartition(",")[2] for key in keys})
        parts = [(key, *key.rpartition(",")[::2]) for key in keys]
        return [(key, metric, _label(metric, filtered, several)) for key, metric, filtered in parts]

    def _name(self, name: str, label: str) -> str:
        is_whole = name == self.one.name or len(self.one.tasks) == 1
        return f"{self.name if is_whole else f'{self.name}/{self._short(name)}'}/{label}"

    def _widest(self, task: str) -> str:
        """The largest group with a task, else the task itself."""
        return next(name for name, tasks in self._tables().items() if task in tasks)

    def _short(self, name: str) -> str:
        return name.removeprefix(f"{self.one.name}_")

    def _shots(self) -> str:
        return ", ".join(map(str, sorted({int(self.results["n-shot"].get(task.name, 0)) for task in self.one.tasks})))

    def _signature(self) -> str:
        one, how = self.one, self.settings.benchmarks
        parts = {
            "lm-eval": version("lm_eval"),
            "task": one.definition[:12],
            "version": "+".join(sorted({str(self.results["versions"].get(task.name)) for task in one.tasks})),
            "shots": self._shots().replace(", ", "+"),
            "template": (self.template[:12] or "server") if how.chat_template else "none",
            "system": digest.text(how.system)[:12] if how.system else "none",
            "seed": self.settings.seed,
        }
        return "|".join(f"{name}:{value}" for name, value in parts.items())


def _sample(
    task: Task,
    place: int,
    rows: Sequence[Mapping[str, Any]],
    book: Book,
    tokenizer: Any,
    cause: Callable[[str], str],
    name: Callable[[str], str],
) -> Sample:
    """An item of which there is a row for each filter."""
    row, filters = rows[0], {str(each["filter"]) for each in rows}
    kind = "loglikelihood" if task.output == "multiple_choice" else task.output
    told = [book.about(kind, args) for args in row["arguments"]]
    answer, references = _answer(task, row)
    scores = {
        name(_label(metric, str(each["filter"]), len(filters))): float(each[metric])
        for each in rows
        for metric in each["metrics"]
        if _is_number(each[metric])
    }
    sampled = task.output == "generate_until" and tokenizer is not None
    return Sample(
        place,
        str(row["arguments"][0][0]),
        answer,
        references,
        metadata={"benchmark": task.name},
        task=task.name,
        scores=scores,
        comment=_causes(row, cause) if task.config.get("unsafe_code") else "",
        failure=next((each.failure for each in told if each.failure), None),
        seconds=sum(each.seconds for each in told),
        asked=asked(row.get("doc") or {}),
        tokens=len(tokenizer(answer, add_special_tokens=False)["input_ids"]) if sampled and answer else 0,
    )


def _causes(row: Mapping[str, Any], cause: Callable[[str], str]) -> str:
    """Why the programs of an item did not pass, the commonest cause first; empty where all did."""
    programs = [each for several in row["filtered_resps"] for each in several]
    found = Counter(said for each in programs if (said := cause(f"{each}\n{row['target']}")))
    return "; ".join(
        said if len(programs) == 1 else f"{said} ({times} of {len(programs)})" for said, times in found.most_common()
    )


def _answer(task: Task, row: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What was answered (of choices the likeliest), and what would have been right."""
    right = row["target"] if isinstance(row["target"], list) else [row["target"]]
    if task.output == "multiple_choice":
        offered = _offered(row["arguments"])
        likely = [float(each[0][0]) for each in row["resps"]][: len(offered)]
        named = [offered[each] if isinstance(each, int) and 0 <= each < len(offered) else str(each) for each in right]
        return offered[max(range(len(likely)), key=likely.__getitem__)], named
    return str(row["resps"][0][0]) if task.output == "generate_until" else "", [str(each) for each in right]


def _offered(requests: Sequence[Sequence[str]]) -> list[str]:
    """What the requests of a question differ in: continuations, or contexts where these are the same."""
    wanted = [str(args[1]).strip() for args in requests]
    return wanted if len(set(wanted)) > 1 or len(wanted) == 1 else [str(args[0]) for args in requests]


def _sampling(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = config.get("generation_kwargs")
    return found if isinstance(found, Mapping) else None


def _label(metric: str, filtered: str, filters: int) -> str:
    """A value's name; the filter's behind it where there are several."""
    return f"{metric}/{filtered}" if filters > 1 else metric


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or hasattr(value, "item")


def _is_score(key: str, value: Any) -> bool:
    return "," in key and "_stderr," not in key and _is_number(value)


def _is_within(task: str, group: str, children: Mapping[str, Sequence[str]]) -> bool:
    return any(child == task or _is_within(task, child, children) for child in children.get(group, ()))


def _mean(items: Sequence[Any]) -> float | None:
    return sum(map(float, items)) / len(items) if items and all(map(_is_number, items)) else None


def _is_mean(value: float, items: Sequence[Any]) -> bool:
    mean = _mean(items)
    return mean is not None and abs(mean - value) < 1e-9


def _interval(value: float, error: Any, items: Sequence[Any]) -> tuple[float, float] | None:
    """Wilson's or the bootstrap's where the value is the mean of the items', else 1.96 of lm-eval's standard errors."""
    if len(items) > 1 and _is_mean(value, items):
        bound = 1.0 if all(0 <= float(each) <= 1 for each in items) else None  # lm-eval does not tell
        return of_mean([float(each) for each in items], bound, 0.0 if bound else -math.inf)
    return (value - _Z * error, value + _Z * error) if isinstance(error, int | float) and math.isfinite(error) else None
