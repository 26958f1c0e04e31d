"""Components: settings plus one piece of work, found by group and name.

A component is a plain dataclass; its fields are its settings. The table here knows nothing of the command line: ranks,
notebooks and the record rebuild a component from a name and a mapping through it.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import importlib
import inspect
import itertools
import pkgutil
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from mlops_llm.errors import UserError

T = TypeVar("T", bound=type)
_table: dict[str, dict[str, type]] = {}


def component(group: str, name: str) -> Callable[[T], T]:
    """Register a dataclass as choice `name` of `group`."""

    def register(cls: T) -> T:
        taken = _table.setdefault(group, {}).get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{group}={name} is both {taken.__qualname__} and {cls.__qualname__} ({cls.__module__})")
        _table[group][name] = cls
        return cls

    return register


def load(package: str) -> None:
    """Import a module and, if it is a package, every module in it, so that their components are registered."""
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{package}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def groups() -> dict[str, dict[str, type]]:
    """Return the table: group -> name -> dataclass."""
    return {group: dict(sorted(names.items())) for group, names in sorted(_table.items())}


def build(group: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """Make a component from its name and settings.

    Raises:
        UserError: the group has no such name, or the component no such field; the nearest is named.
    """
    names = _table.get(group, {})
    if name not in names:
        raise UserError(f"unknown {group} '{name}'{near(name, names)}", remedy=f"one of: {', '.join(sorted(names))}")
    fields = {field.name: field for field in dataclasses.fields(names[name])}
    values = dict(settings or {})
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"Key '{key}' not in '{names[name].__name__}'{near(key, fields)}")
        default = fields[key].default
        if isinstance(default, enum.Enum) and isinstance(value, str):
            choices = type(default).__members__
            if value not in choices:
                raise UserError(f"'{value}' is none of: {', '.join(choices)}", f"{group}.{key}")
            values[key] = choices[value]
    return names[name](**values)


def near(word: str, words: Any) -> str:
    """Return ` (did you mean X?)` for the closest of `words`, or nothing."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


@cache
def documentation(cls: type) -> dict[str, str]:
    """Return field -> the sentence beneath it in the class's source, bases included."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, after in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(after.value.value)
    return found
