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
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from mlops_llm.errors import UserError

T = TypeVar("T", bound=type)
_table: dict[str, dict[str, type]] = {}
_made: list[tuple[str, str, type]] = []
"""Group, name and dataclass of every component, also of one whose name another stage has since taken."""


def component(group: str, name: str) -> Callable[[T], T]:
    """Register a dataclass as choice `name` of `group`; of the group `op` each stage has its own."""

    def register(cls: T) -> T:
        taken = _table.setdefault(group, {}).get(name)
        again = taken is None or (taken.__module__, taken.__qualname__) == (cls.__module__, cls.__qualname__)
        if taken is not None and not again and (group != "op" or _stage(taken) == _stage(cls)):
            raise ValueError(f"{group}={name} is both {taken.__qualname__} and {cls.__qualname__} ({cls.__module__})")
        _made.append((group, name, cls))
        _table[group][name] = cls
        return cls

    return register


def _stage(cls: type) -> list[str]:
    return cls.__module__.split(".")[:2]


def load(package: str) -> None:
    """Import a module and, if it is a package, every module in it; where a name is another stage's too, it is now theirs."""
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{package}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for group, name, cls in _made:
        if f"{cls.__module__}.".startswith(f"{package}."):
            _table[group][name] = cls


def groups() -> dict[str, dict[str, type]]:
    """Return the table: group -> name -> dataclass."""
    return {group: dict(sorted(names.items())) for group, names in sorted(_table.items())}


def build(group: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """Make a component from its name and settings.

    Raises:
        UserError: the group has no such name, or the component no such field; the nearest is named.
    """
    cls = _class(group, name)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = dict(settings or {})
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"Key '{key}' not in '{cls.__name__}'{near(key, fields)}")
        default, factory = fields[key].default, fields[key].default_factory
        several = factory() if isinstance(value, list) and factory is not dataclasses.MISSING else None
        if isinstance(default, enum.Enum):
            values[key] = _choice(type(default), value, f"{group}.{key}")
        elif isinstance(several, list) and several and isinstance(several[0], enum.Enum):
            values[key] = [_choice(type(several[0]), each, f"{group}.{key}") for each in value]
    return cls(**values)


def _choice(kind: type[enum.Enum], value: Any, where: str) -> Any:
    """The member of a choice that is meant by its name; another value stays."""
    if not isinstance(value, str):
        return value
    choices = kind.__members__
    if value not in choices:
        raise UserError(f"'{value}' is none of: {', '.join(choices)}", where)
    return choices[value]


def _class(group: str, name: str) -> type:
    names = _table.get(group, {})
    if name not in names:
        raise UserError(f"unknown {group} '{name}'{near(name, names)}", remedy=f"one of: {', '.join(sorted(names))}")
    return names[name]


def plain(value: Any) -> Any:
    """Settings as JSON can hold them: a dataclass is a mapping, a choice its name, a component also says what it is."""
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        where = _place(type(value))
        return {"component": where, "settings": found} if where else found
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def rebuilt(cls: type, values: Mapping[str, Any]) -> Any:
    """Make settings of a class from what `plain` made of them; their components must be loaded.

    Raises:
        UserError: one of the components is not there.
    """
    hints = typing.get_type_hints(cls)
    return cls(**{name: _revived(hints[name], value) for name, value in values.items()})


def _revived(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"component", "settings"}:
        group, name = value["component"]
        return rebuilt(_class(group, name), value["settings"])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    if value is not None and isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint[value]
    if isinstance(value, Mapping):
        inner = [*typing.get_args(hint), Any, Any][1]
        return (
            rebuilt(hint, value)
            if dataclasses.is_dataclass(hint) and isinstance(hint, type)
            else {key: _revived(inner, each) for key, each in value.items()}
        )
    if isinstance(value, list):
        return [_revived([*typing.get_args(hint), Any][0], each) for each in value]
    return value


def name_of(one: Any) -> str:
    """The name under which a component is chosen in its group."""
    place = _place(type(one))
    if place is None:
        raise ValueError(f"{type(one).__qualname__} is no component")
    return place[1]


def _place(cls: type) -> list[str] | None:
    """Group and name under which a class is registered."""
    return next(([group, name] for group, names in _table.items() for name, each in names.items() if each is cls), None)


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
