"""A file of jobs: read, and checked as a whole before anything begins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm import order
from mlops_llm.component import near
from mlops_llm.errors import UserError, first_line

REF = "jobs:/"
"""What a ref to another job's result begins with: `jobs:/merged`."""
AFTER = "after"
_TOP = ("defaults", "jobs")
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Job:
    """An operation of a batch."""

    name: str
    settings: Mapping[str, Any]
    """As on the command line: `op`, `op.ratio`, `models`, ... -> value."""
    after: tuple[str, ...]
    """Jobs that are named to come before it."""
    lines: Mapping[str, int]
    """Setting -> its line in the file; the job's own has the empty name."""
    file: str

    @property
    def refs(self) -> list[str]:
        """Names of the jobs whose results it takes."""
        return [each.removeprefix(REF) for value in self.settings.values() for each in _texts(value) if each.startswith(REF)]

    @property
    def models(self) -> list[str]:
        """Refs of the models that it takes from elsewhere."""
        named = [self.settings.get("model"), *(self.settings.get("models") or [])]
        return [each for each in named if isinstance(each, str) and not each.startswith(REF)]

    @property
    def variables(self) -> list[str]:
        """Environment variables that it names."""
        return [value for key, value in _leaves(self.settings) if key.endswith("_env") and value]

    @property
    def needs(self) -> list[str]:
        """Names of all jobs that come before it."""
        return list(dict.fromkeys([*self.after, *self.refs]))

    def where(self, setting: str = "") -> str:
        """The place of a setting in the file, for a person."""
        known = next((key for key in (setting, setting.rpartition(".")[0], "") if key in self.lines), "")
        return f"{self.file}:{self.lines[known]}: job {self.name}" + (f", {setting}" if setting else "")

    def error(self, error: UserError) -> UserError:
        """What is wrong with the job, with its place."""
        return UserError(error.what, self.where(error.where), error.remedy)

    def settled(self, found: Mapping[str, str]) -> dict[str, Any]:
        """The settings with the refs of other jobs' results put in.

        Args:
            found: job -> ref of what it made.
        """
        return {key: _replaced(value, found) for key, value in self.settings.items()}


def read(path: Path) -> list[Job]:
    """The jobs of a file, each after those that it needs; those that need nothing of each other stay as they stand.

    Raises:
        UserError: the file cannot be read, is no YAML, a key is unknown or there twice, a job is named that there is not, or
            jobs wait for each other; file and line are named.
    """
    import yaml

    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({first_line(error)})", str(path), "name a file of jobs: op.file=jobs.yaml") from error
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        jobs = _jobs(loader, loader.get_single_node(), str(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"is no YAML ({said})", f"{path}:{mark.line + 1}" if mark else str(path), "mend the line") from error
    finally:
        if loader:
            loader.dispose()
    return ordered(jobs)


def _jobs(loader: Any, node: Any, file: str) -> list[Job]:
    from yaml import MappingNode

    if not isinstance(node, MappingNode):
        raise UserError("holds no jobs", file, "write jobs: and beneath it NAME: with its settings")
    top = _entries(loader, node, file, "the file")
    for key, (line, _) in top.items():
        if key not in _TOP:
            raise UserError(f"unknown key '{key}'{near(key, _TOP)}", f"{file}:{line}", f"a file has: {', '.join(_TOP)}")
    defaults = _settings(loader, top, "defaults", file)
    named = _mapping(loader, top, "jobs", file)
    if not named:
        raise UserError("holds no jobs", file, "write jobs: and beneath it NAME: with its settings")
    jobs = []
    for name, (line, each) in named.items():
        if not _NAME.fullmatch(name):
            raise UserError(f"'{name}' is no name for a job", f"{file}:{line}", "take letters, digits, '-', '_' and '.'")
        if not isinstance(each, MappingNode):
            raise UserError(f"job {name} has no settings", f"{file}:{line}", "write op: NAME beneath it")
        given = {**defaults, **_values(loader, each, file, f"job {name}")}
        after = given.pop(AFTER, (line, []))[1]
        wanted = [after] if isinstance(after, str) else after
        if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
            raise UserError("is no list of jobs", f"{file}:{line}: job {name}, {AFTER}", f"write {AFTER}: [NAME]")
        lines = {"": line, **{key: at for key, (at, _) in given.items()}}
        jobs.append(Job(name, {key: value for key, (_, value) in given.items()}, tuple(wanted), lines, file))
    return jobs


def _settings(loader: Any, top: Mapping[str, tuple[int, Any]], key: str, file: str) -> dict[str, tuple[int, Any]]:
    if key not in top:
        return {}
    line, node = top[key]
    from yaml import MappingNode

    if not isinstance(node, MappingNode):
        raise UserError(f"{key} is no mapping", f"{file}:{line}", "write settings beneath it")
    found = _values(loader, node, file, key)
    own = next((name for name in found if name == AFTER or name.partition(".")[0] == "op"), None)
    if own:
        raise UserError("is of one job, not of all", f"{file}:{found[own][0]}: {key}, {own}", "write it into the jobs")
    return found


def _mapping(loader: Any, top: Mapping[str, tuple[int, Any]], key: str, file: str) -> dict[str, tuple[int, Any]]:
    from yaml import MappingNode

    if key not in top or not isinstance(top[key][1], MappingNode):
        return {}
    return _entries(loader, top[key][1], file, key)


def _entries(loader: Any, node: Any, file: str, of: str) -> dict[str, tuple[int, Any]]:
    """Key -> its line and node, with what `<<` takes in.

    Raises:
        UserError: a key is there twice, or is no word.
    """
    from yaml import ScalarNode

    own: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise UserError(f"a key of {of} is a list or a mapping", f"{file}:{line}", "write a word before each colon")
        if key.value in own:
            raise UserError(
                f"the key '{key.value}' of {of} stands twice (line {own[key.value]} too)", f"{file}:{line}", "leave one out"
            )
        own[key.value] = line
    loader.flatten_mapping(node)
    return {str(key.value): (key.start_mark.line + 1, value) for key, value in node.value}


def _values(loader: Any, node: Any, file: str, of: str) -> dict[str, tuple[int, Any]]:
    entries = _entries(loader, node, file, of)
    return {key: (line, loader.construct_object(each, deep=True)) for key, (line, each) in entries.items()}


def ordered(jobs: Sequence[Job]) -> list[Job]:
    """Jobs, each after those that it needs, else as they were.

    Raises:
        UserError: one needs a job that there is not, or jobs wait for each other.
    """
    there = {job.name: job for job in jobs}
    for job in jobs:
        for name in job.needs:
            if name not in there:
                setting = next((key for key, value in job.settings.items() if REF + name in _texts(value)), AFTER)
                raise UserError(
                    f"there is no job '{name}'{near(name, there)}", job.where(setting), "name one of the file's jobs"
                )
    try:
        return [there[name] for name in order.ordered({job.name: job.needs for job in jobs})]
    except order.CircleError as error:
        raise UserError(f"waits for itself: {error}", there[error.names[0]].where(), "take one of these out") from error


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _leaves(value: Any, key: str = "") -> list[tuple[str, str]]:
    """The texts of settings, each with the name of the setting that it stands in."""
    if isinstance(value, Mapping):
        return [leaf for name, each in value.items() for leaf in _leaves(each, str(name))]
    return [(key, value)] if isinstance(value, str) else []


def _replaced(value: Any, found: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(each, found) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, found) for each in value]
    return found[value.removeprefix(REF)] if isinstance(value, str) and value.startswith(REF) else value
