"""What lm-eval's task files say, read without lm-eval: importing it takes ten seconds, and its own scan of them eight more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mlops_llm.component import near
from mlops_llm.errors import UserError, first_line

_NAME = re.compile(rb"""^["']?(task|group)["']?[ \t]*:[ \t]*["']?([^\s"'#\[\]{}]+)["']?[ \t]*(?:#.*)?\r?$""", re.MULTILINE)
_TAGS = re.compile(rb"""^["']?tag["']?[ \t]*:[ \t]*(\[[^\]]*\]|[^\n]*)((?:\n[ \t]*-[^\n]*)*)""", re.MULTILINE)
_INCLUDE = re.compile(rb"""^["']?include["']?[ \t]*:[ \t]*["']?([^\s"'#\[\]]+)""", re.MULTILINE)
_WORD = re.compile(r"[^\s,\[\]\"'#]+")


@dataclass(frozen=True)
class Task:
    """One task as its file defines it."""

    name: str
    file: Path
    config: Mapping[str, Any]
    """Of the file and those that it includes; a function is a text."""
    files: tuple[Path, ...]
    """All that define it: the file, those that it includes, and the Python files beside them."""

    @property
    def source(self) -> str:
        """Its data set's name on the hub, or of the builder that reads its own files."""
        return str(self.config.get("dataset_path") or "")

    @property
    def subset(self) -> str:
        """The part of the data set; empty where there is one only."""
        return str(self.config.get("dataset_name") or "")

    @property
    def counted(self) -> str:
        """The split whose items are asked."""
        return str(self.config.get("test_split") or self.config.get("validation_split") or "test")

    @property
    def examples(self) -> str | None:
        """The split that worked examples are taken from; None where the task brings its own."""
        found = self.config.get("fewshot_split")
        if found is None and not (self.config.get("fewshot_config") or {}).get("samples"):
            found = self.config.get("training_split") or self.config.get("validation_split") or self.config.get("test_split")
        return str(found) if found else None

    @property
    def output(self) -> str:
        """What is asked of the model: `generate_until`, `multiple_choice`, `loglikelihood`, `loglikelihood_rolling`."""
        return str(self.config.get("output_type", "generate_until"))

    def shots(self, asked: int | None) -> int:
        """Worked examples before a question; a task that says none never gets any, as in lm-eval."""
        own = self.config.get("num_fewshot")
        return int(own or 0) if asked is None or own == 0 else asked


@dataclass
class Index:
    """Names in a folder of task files."""

    files: dict[str, Path] = field(default_factory=dict)
    """Task or group -> its file."""
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Tag -> the tasks that carry it."""

    @property
    def names(self) -> list[str]:
        """All of them."""
        return sorted({*self.files, *self.tags})

    def tasks(self, name: str) -> list[Task]:
        """The tasks that a task's, a group's or a tag's name stands for.

        Raises:
            UserError: there is none of this name, or its file cannot be read.
        """
        if name in self.tags and name not in self.files:
            return [task for each in sorted(self.tags[name]) for task in self.tasks(each)]
        if name not in self.files:
            raise UserError(f"unknown task '{name}'{near(name, self.names)}")
        config, files = read(self.files[name])
        if "group" not in config or isinstance(config.get("task"), str):
            code = {each for file in files for each in file.parent.glob("*.py")}
            return [Task(name, self.files[name], config, (*files, *sorted(code)))]
        return self._members(config["task"])

    def _members(self, named: Any) -> list[Task]:
        """Tasks of a group's list: names, or mappings that name a task or a group, or are a group themselves."""
        found = list[Task]()
        for each in named if isinstance(named, list) else [named]:
            if isinstance(each, Mapping) and each.get("group") not in self.files and isinstance(each.get("task"), list):
                found += self._members(each["task"])
            else:
                found += self.tasks(str((each.get("group") or each.get("task")) if isinstance(each, Mapping) else each))
        return found


def shipped() -> Path:
    """The folder of lm-eval's own tasks.

    Raises:
        UserError: lm-eval is not installed.
    """
    found = find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise UserError("lm_eval is not installed", remedy="install it with: pip install 'mlops-llm[eval]'")
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


@cache
def index(folder: Path) -> Index:
    """Names of all tasks, groups and tags in a folder's YAML files; half a second for the 14,000 of lm-eval."""
    found = Index()
    for file in _files(folder):
        content = file.read_bytes()
        names = [(kind, name.decode("utf-8", "replace")) for kind, name in _NAME.findall(content)]
        group = next((name for kind, name in names if kind == b"group"), None)
        task = next((name for kind, name in names if kind == b"task"), None)
        if name := group or task:
            found.files.setdefault(name, file)
        if task and not group:
            for tag in _tags(file):
                found.tags.setdefault(tag, []).append(task)
    return found


def read(file: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """A task's settings with those that it includes, its own before theirs, and the files that were read.

    Raises:
        UserError: a file cannot be read.
    """
    try:
        config = yaml.load(file.read_text("utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read ({first_line(error)})", str(file), "mend the task's file") from error
    if not isinstance(config, dict):
        raise UserError("is no mapping of settings", str(file), "mend the task's file")
    included = config.pop("include", None) or []
    merged, files = dict[str, Any](), [file]
    for each in included if isinstance(included, list) else [included]:
        theirs, more = read(file.parent / each)
        merged |= theirs
        files += more
    return merged | config, tuple(files)


class _Loader(yaml.SafeLoader):
    """Takes a function's name for a text, so that nothing is imported."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return f"!function {loader.construct_scalar(node)}"


_Loader.add_constructor("!function", _function)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in ("__pycache__", ".ipynb_checkpoints"))
        yield from (Path(place) / name for name in sorted(files) if name.endswith(".yaml"))


@cache
def _tags(file: Path) -> tuple[str, ...]:
    """Tags that a file gives its task, itself or by what it includes."""
    try:
        content = file.read_bytes()
    except OSError:
        return ()
    if found := _TAGS.search(content):
        lines = (found[1] + found[2].replace(b"\n", b" ").replace(b" - ", b" ")).decode("utf-8", "replace")
        return tuple(word for word in _WORD.findall(lines) if word != "-")
    included = _INCLUDE.search(content)
    return _tags(file.parent / included[1].decode("utf-8", "replace")) if included else ()
