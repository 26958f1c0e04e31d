"""The settings of one job, typed: names as on the command line, values as YAML has them.

The command line composes settings in the entry room; a file of jobs has no use for overrides, groups or interpolation, so
this is the same schema read from plain values.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any

from mlops_llm import component
from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.surgery.config import Surgery

OF_BATCH = ("run_name", "folder", "project", "resume", "launch")
"""Settings of the whole batch, which no job has."""
ONE = ("judge", "engine")
"""Groups of which one component is chosen."""
SEVERAL = "metric"
"""Group of which several are chosen, by a list of names."""


def request(usual: Surgery, given: Mapping[str, Any]) -> Surgery:
    """A job's settings.

    Args:
        usual: what a setting is that the job does not give.
        given: `op`, `op.ratio`, `models`, `sampling.max_new_tokens`, ... -> value.

    Raises:
        UserError: there is no such setting, or its value does not fit; `where` is the setting.
    """
    if not isinstance(given.get("op"), str):
        raise UserError("names no operation", "op", "write op: NAME, such as op: merge_slerp")
    tree = _tree(given)
    made = dict[str, Any]()
    hints, known = typing.get_type_hints(Surgery), {field.name for field in dataclasses.fields(Surgery)}
    for key, value in tree.items():
        if key in OF_BATCH:
            raise UserError("is a setting of the whole batch", key, f"give it on the command line: {key}=…")
        if key not in known:
            raise UserError(f"there is no such setting{near(key, known)}", key, "see python -m mlops_llm.surgery --help")
        if key in ("op", *ONE):
            made[key] = _component(key, value)
        elif key == SEVERAL:
            made[key] = _components(key, value)
        elif isinstance(value, _Node) and dataclasses.is_dataclass(current := getattr(usual, key)):
            made[key] = _changed(current, value, key)
        else:
            made[key] = typed(hints[key], _whole(value, key), key)
    return dataclasses.replace(usual, **made)


class _Node(dict[str, Any]):
    """Settings below a name: the names' rest -> value; what the name itself is set to has the empty one."""


def _tree(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        head, dot, rest = key.partition(".")
        if not dot and not isinstance(value, Mapping):
            found[head] = _Node({**found[head], "": value}) if isinstance(found.get(head), _Node) else value
            continue
        before = found.get(head, {})
        node = before if isinstance(before, _Node) else _Node({"": before} if head in found else {})
        node.update({rest: value} if dot else {str(name): each for name, each in value.items()})
        found[head] = node
    return found


def _component(group: str, value: Any) -> Any:
    """The component of a group that is named, with its settings."""
    if value is None:
        return None
    node = value if isinstance(value, _Node) else _Node({"": value})
    name = node.get("")
    if not isinstance(name, str):
        raise UserError("is not chosen, only settings of it", group, f"write {group}: NAME")
    return _built(group, name, {key: each for key, each in node.items() if key}, group)


def _components(group: str, value: Any) -> dict[str, Any]:
    node = value if isinstance(value, _Node) else _Node({"": value})
    names = node.get("")
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise UserError("is no list of names", group, f"write {group}: [bleu, rouge]")
    settings = _tree({key: each for key, each in node.items() if key})
    odd = next((key for key in settings if key not in names), None)
    if odd is not None:
        raise UserError(f"is not chosen{near(odd, names)}", f"{group}.{odd}", f"write it into {group}: […]")
    chosen = {name: settings.get(name, _Node()) for name in names}
    return {name: _built(group, name, dict(each), f"{group}.{name}") for name, each in chosen.items()}


def _built(group: str, name: str, settings: Mapping[str, Any], where: str) -> Any:
    choices = component.groups().get(group, {})
    if name not in choices:
        raise UserError(f"there is no {group} '{name}'{near(name, choices)}", where, f"one of: {', '.join(choices)}")
    hints = typing.get_type_hints(choices[name])
    fields = [field.name for field in dataclasses.fields(choices[name])]
    for key in settings:
        if key not in fields:
            raise UserError(
                f"'{name}' has no such setting{near(key, fields)}", f"{where}.{key}", f"it has: {', '.join(fields)}"
            )
    return choices[name](**{key: typed(hints[key], value, f"{where}.{key}") for key, value in settings.items()})


def _changed(current: Any, node: _Node, where: str) -> Any:
    """Settings that belong together, some of them set."""
    hints, made = typing.get_type_hints(type(current)), dict[str, Any]()
    for key, value in _tree(node).items():
        if key not in hints:
            raise UserError(f"there is no such setting{near(key, hints)}", f"{where}.{key}", f"it has: {', '.join(hints)}")
        made[key] = typed(hints[key], _whole(value, f"{where}.{key}"), f"{where}.{key}")
    return dataclasses.replace(current, **made)


def _whole(value: Any, where: str) -> Any:
    if isinstance(value, _Node):
        raise UserError("has no settings of its own", f"{where}.{next(iter(value))}", f"write {where}: VALUE")
    return value


def typed(hint: Any, value: Any, where: str) -> Any:
    """A value as a setting wants it.

    Raises:
        UserError: it does not fit.
    """
    several = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if hint is Any or (value is None and several):
        return value
    if several:
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _choice(hint, value, where)
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise UserError("is one value, and a list is wanted", where, f"write {where}: [A, B]")
        return [typed(typing.get_args(hint)[0], each, where) for each in value]
    if hint is float and isinstance(value, str | int) and not isinstance(value, bool):
        value = _number(value)  # YAML takes 1e-3 for a text
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        raise UserError(f"is {value!r}, and {names.get(hint, hint.__name__)} is wanted", where, "mend it")
    return value


def _number(value: str | int) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _choice(kind: type[enum.Enum], value: Any, where: str) -> enum.Enum:
    if isinstance(value, bool):
        value = "on" if value else "off"  # YAML's own reading of these words
    if value not in kind.__members__:
        names = kind.__members__
        raise UserError(f"'{value}' is no choice{near(str(value), names)}", where, f"one of: {', '.join(names)}")
    return kind[value]
