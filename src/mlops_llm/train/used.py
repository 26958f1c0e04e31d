"""Settings that a training takes otherwise than they were given: the parameters of its run keep what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PREFIX = "used."
"""Before a setting's name, as a tag of the run."""
_NAMED = ("output",)
"""What is null until a run has a name."""


def changed(asked: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """The settings that differ, by their dotted names, with the values that count.

    Args:
        asked: settings as `component.plain` gives them.
        taken: the same ones as the training takes them.
    """
    before = dict(_flat(asked))
    return {name: _told(value) for name, value in _flat(taken) if value != before.get(name) and name not in _NAMED}


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        inner = value.get("settings", value) if isinstance(value, Mapping) else None
        if inner is None:
            yield name, value
        else:
            yield from _flat(inner, name)


def _told(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
