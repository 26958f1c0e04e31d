"""Rows of benchmarks from files or registered datasets, in the form that lm-eval's tasks read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.data.folders import here, inside
from mlops_llm.data.folders import name as stem_of
from mlops_llm.data.read import ENDINGS, Row, read_path
from mlops_llm.errors import UserError
from mlops_llm.eval.benchmarks.definitions import Task

FOLDERS = {"gsm8k": "gsm8k", "mmlu": "mmlu", "truthful_qa": "truthfulqa", "openai_humaneval": "humaneval"}
"""Name of a data set on the hub -> name of the folder, or registered dataset, that holds its rows here."""
_LETTERS = "ABCD"


@dataclass(frozen=True)
class Local:
    """Rows of one task that are here."""

    where: str
    """For a person: a folder, or the name of a dataset with its version."""
    rows: Mapping[str, tuple[Row, ...]]
    """Split -> its rows, as the task reads them."""

    @cached_property
    def digest(self) -> str:
        """Of all rows, whatever files they lay in."""
        return digest.row({split: digest.canonical(rows) for split, rows in self.rows.items()})


def local(task: Task, folder: Path | None, shots: int) -> Local | None:
    """Rows of a task's splits: from a folder if one is named, else from registered datasets; None where there are none.

    Args:
        task: whose rows are wanted.
        folder: holds the benchmark's files, in a folder of its own or directly.
        shots: worked examples before each question; without any their split may be missing.

    Raises:
        UserError: a row has not the form that the task reads, or only some of the splits are there.
    """
    splits = list(dict.fromkeys(split for split in (task.counted, task.examples) if split))
    found = _in_folder(task, folder, splits) if folder else _registered(task, splits)
    if found is None:
        return None
    where, rows = found
    if shots and task.examples and task.examples not in rows:
        what = f"has no split '{task.examples}', which {task.name} takes its {shots} worked examples from"
        raise UserError(what, where, "put the file beside the others, or take none: benchmarks.few_shot=0")
    form = _FORMS.get(_key(task), _as_it_is)
    made = {
        split: tuple(form(row, f"{where}, {split} row {n}") for n, row in enumerate(rows.get(split, ()), 1)) for split in splits
    }
    if not made[task.counted]:
        raise UserError(f"has no rows of {task.name}", where, "put its items there")
    if task.examples and len(made[task.examples]) < shots:
        what = f"is {shots}, there are {len(made[task.examples])} examples for {task.name}"
        raise UserError(what, "benchmarks.few_shot", "give a smaller number")
    return Local(where, made)


def looked_in(task: Task, folder: Path | None) -> str:
    """Where rows of a task were looked for, for a person: folders, or the name of a dataset."""
    if folder:
        return " and ".join(str(each) for each in dict.fromkeys(_places(task, folder)))
    return f"'{_known_as(task)}'"


def _key(task: Task) -> str:
    """The data set's name on the hub, without its owner; empty where the task reads files of its own."""
    return task.source.rpartition("/")[2]


def _known_as(task: Task) -> str:
    return FOLDERS.get(_key(task), task.name)


def _places(task: Task, folder: Path) -> list[Path]:
    names = [_known_as(task), _key(task), task.name]
    return [*(folder / name for name in names if name and (folder / name).is_dir()), folder]


def _in_folder(task: Task, folder: Path, splits: list[str]) -> tuple[str, dict[str, list[Row]]] | None:
    for place in _places(task, folder):
        found = {split: files for split in splits if (files := _files(task, place, split))}
        if task.counted in found:
            return str(place), {split: _of_subset(task, _read(tuple(files))) for split, files in found.items()}
    return None


def _files(task: Task, place: Path, split: str) -> list[Path]:
    """A split's files: SPLIT, SUBSET_SPLIT, or the hub's SPLIT-00000-of-00002; in a folder of the subset or split, or here."""
    subset = task.subset
    for base in (place / subset, place / split, place):
        if not base.is_dir():
            continue
        there = {stem_of(file): file for file in sorted(base.iterdir()) if file.name.endswith(ENDINGS)}
        one = next((there[name] for name in (f"{subset}_{split}", split) if name in there), None)
        if one:
            return [one]
        if shards := [file for name, file in there.items() if name.startswith(f"{split}-")]:
            return shards
        named = [there[name] for name in _OWN_NAMES.get(_key(task), ()) if name in there and split == task.counted]
        if named:
            return named[:1]
    return []


_OWN_NAMES = {"truthful_qa": ("mc_task", "TruthfulQA"), "openai_humaneval": ("HumanEval",)}
"""Names of the files in which the authors publish them."""


def _registered(task: Task, splits: list[str]) -> tuple[str, dict[str, list[Row]]] | None:
    """NAME holds the items, NAME_SPLIT the other splits."""
    from mlops_llm.data import ref
    from mlops_llm.tracking import datasets

    store, name = ref.record(), _known_as(task)

    def place(wanted: str) -> ref.Place | None:
        known = store is not None and datasets.find(store, wanted) is not None
        return ref.locate(wanted) if known or wanted in inside(here()) else None

    items = place(name)
    if items is None:
        return None
    if items.path.is_dir():
        return _in_folder(task, items.path, splits)
    where = f"{name}@{items.version.label}" if items.version else str(items.path)
    rows = {task.counted: _of_subset(task, _read((items.path,)))}
    for split in set(splits) - {task.counted}:
        if other := place(f"{name}_{split}"):
            rows[split] = _of_subset(task, _read((other.path,)))
    return where, rows


def _read(files: tuple[Path, ...]) -> list[Row]:
    return _rows(files, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=8)
def _rows(files: tuple[Path, ...], changed: tuple[int, ...]) -> list[Row]:
    """Rows of some files; MMLU's as its authors publish them have no header."""
    rows = list[Row]()
    for file in files:
        rows += _headless(file) or read_path(file).rows
    return rows


def _headless(file: Path) -> list[Row]:
    if file.suffix != ".csv":
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        first = next(reader, [])
        if len(first) != 6 or first[5].strip() not in _LETTERS or first[0] == "question":
            return []
        return [{"question": cells[0], "choices": cells[1:5], "answer": cells[5]} for cells in (first, *reader) if cells]


def _of_subset(task: Task, rows: list[Row]) -> list[Row]:
    """Rows of the task's subject, where rows say theirs."""
    subset = task.subset
    subjects = [row.get("subject") or (row.get("metadata") or {}).get("subject") for row in rows]
    if _key(task) != "mmlu" or not any(subjects):
        return rows
    return [row for row, subject in zip(rows, subjects, strict=True) if str(subject).replace(" ", "_") == subset]


def _as_it_is(row: Row, where: str) -> Row:
    return row


def _first(row: Row, names: Iterable[str], where: str) -> Any:
    """The first of some fields that a row has.

    Raises:
        UserError: it has none.
    """
    names = tuple(names)
    found = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    if found is None:
        raise UserError(f"has no '{names[0]}'", where, f"it has: {', '.join(map(str, row))[:100]}")
    return found


def _gsm8k(row: Row, where: str) -> Row:
    question = _first(row, ("question", "prompt"), where)
    return {"question": str(question), "answer": str(_first(row, ("answer", "response", "reference", "solution"), where))}


def _mmlu(row: Row, where: str) -> Row:
    question = str(_first(row, ("question", "prompt"), where))
    choices = row.get("choices")
    if choices is None:
        names = _LETTERS if "A" in row else [f"choice{number}" for number in range(4)]
        choices = [_first(row, (name,), where) for name in names]
    answer = str(_first(row, ("answer", "label", "reference"), where)).strip()
    place = _LETTERS.find(answer) if len(answer) == 1 and answer in _LETTERS else int(answer) if answer.isdigit() else -1
    if not isinstance(choices, list) or len(choices) != 4 or not 0 <= place < 4:
        raise UserError("is no question with four choices and an answer from 0 to 3, or A to D", where, "mend the row")
    return {"question": question, "choices": [str(each) for each in choices], "answer": place}


def _truthfulqa(row: Row, where: str) -> Row:
    """The best answer first: the task takes the first choice for the right one."""
    if "Best Answer" in row:
        good, bad = (_listed(row.get(f"{kind} Answers", "")) for kind in ("Correct", "Incorrect"))
        best = str(row["Best Answer"]).strip()
        targets = {
            "mc1_targets": {best: 1} | dict.fromkeys(bad, 0),
            "mc2_targets": dict.fromkeys(good, 1) | dict.fromkeys(bad, 0),
        }
        return {"question": str(_first(row, ("Question",), where))} | {
            name: _choices(each, where) for name, each in targets.items()
        }
    question = str(_first(row, ("question", "prompt"), where))
    return {"question": question} | {
        name: _choices(_first(row, (name,), where), where) for name in ("mc1_targets", "mc2_targets")
    }


def _choices(targets: Any, where: str) -> dict[str, list[Any]]:
    pairs = list[tuple[Any, Any]]()
    if isinstance(targets, Mapping):
        named = set(targets) == {"choices", "labels"}
        pairs = list(zip(targets["choices"], targets["labels"], strict=True)) if named else list(targets.items())
    if not pairs or int(pairs[0][1]) != 1:
        raise UserError("has no choices whose first is a right one", where, "put the best answer first")
    return {"choices": [str(choice) for choice, _ in pairs], "labels": [int(label) for _, label in pairs]}


def _listed(text: str) -> list[str]:
    return [each.strip() for each in str(text).split(";") if each.strip()]


def _humaneval(row: Row, where: str) -> Row:
    made = {name: str(_first(row, (name,), where)) for name in ("prompt", "test", "entry_point")}
    return {"task_id": str(row.get("task_id", "")), **made, "canonical_solution": str(row.get("canonical_solution", ""))}


_FORMS: Mapping[str, Callable[[Row, str], Row]] = {
    "gsm8k": _gsm8k,
    "mmlu": _mmlu,
    "truthful_qa": _truthfulqa,
    "openai_humaneval": _humaneval,
}
