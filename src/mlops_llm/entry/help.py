"""`--help`: the stage, its groups and their choices, its settings, and commands that work."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import shutil
import textwrap
import typing
from pathlib import Path
from typing import Any

from mlops_llm import component


def text(stage: str, schema: type, examples: tuple[str, ...], presets: Path) -> str:
    """Write the help page of a stage."""
    experiments = _experiments(stage, presets)
    lines = [
        inspect.cleandoc(schema.__doc__ or ""),
        "",
        f"usage: python -m mlops_llm.{stage} [KEY=VALUE ...] [-m] [--cfg job]",
        "",
    ]
    lines += ["examples:", *(f"  {command}" for command in [*examples][:3]), ""]
    if experiments:
        lines += [
            "experiments (+experiment=NAME):",
            *(f"  {name:<18} {command}" for name, command in experiments.items()),
            "",
        ]
    named = {field.name for field in dataclasses.fields(schema)}
    groups = {group: names for group, names in component.groups().items() if group in named}
    lines += ["groups (GROUP=CHOICE, then GROUP.SETTING=VALUE):"]
    several = {field.name for field in dataclasses.fields(schema) if field.default_factory is dict}
    for group, names in groups.items():
        choices = "|".join([*names, *_variants(group, presets)])
        lines += [f"  {group}=[{choices}]  (one or more, with commas)" if group in several else f"  {group}={choices}"]
    lines += ["", "settings:", *_settings(schema, "", set(groups))]
    for group, names in groups.items():
        for name, cls in names.items():
            summary = inspect.cleandoc(cls.__doc__ or "").splitlines()[0]
            prefix = f"{group}.{name}." if group in several else f"{group}."
            lines += ["", f"{group}={name}: {summary}", *_settings(cls, prefix, set())]
    lines += [
        "",
        "-m runs every combination of comma-separated values (also with hydra/launcher=joblib);",
        "--cfg job prints the composed config.",
    ]
    return "\n".join(lines)


def _settings(cls: type, prefix: str, groups: set[str]) -> list[str]:
    lines: list[str] = []
    sentences, hints = component.documentation(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in groups:
            continue
        of_each = typing.get_args(hints[field.name])[1] if typing.get_origin(hints[field.name]) is dict else None
        if isinstance(field.default_factory, type) and dataclasses.is_dataclass(field.default_factory):
            lines += _settings(field.default_factory, f"{prefix}{field.name}.", set())
            continue
        head = f"  {prefix}{field.name}={_default(field)}"
        width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 140)) - 38
        body = textwrap.wrap(_choices(field) + " ".join(sentences.get(field.name, "").split()), width)
        if len(head) > 37:
            lines.append(head)
            head = ""
        lines += [f"{start:<37} {line}".rstrip() for start, line in zip([head, *[""] * len(body)], body or [""], strict=False)]
        if dataclasses.is_dataclass(of_each) and isinstance(of_each, type):
            lines += _settings(of_each, f"{prefix}{field.name}.NAME.", set())
    return lines


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        value = field.default_factory() if field.default_factory is not dataclasses.MISSING else "???"
    if isinstance(value, enum.Enum):
        return value.name
    return "null" if value is None else str(value).replace("True", "true").replace("False", "false")


def _choices(field: dataclasses.Field[Any]) -> str:
    default = field.default
    return f"[{'|'.join(each.name for each in type(default))}] " if isinstance(default, enum.Enum) else ""


def _variants(group: str, presets: Path) -> list[str]:
    return sorted(path.stem for path in (presets / group).glob("*.yaml"))


def _experiments(stage: str, presets: Path) -> dict[str, str]:
    found = {}
    for folder in (presets, Path.cwd() / "conf"):
        for path in sorted((folder / "experiment").glob("*.yaml")):
            first = path.read_text("utf-8").partition("\n")[0].lstrip("# ").strip()
            if f"mlops_llm.{stage} " in first:
                found[path.stem] = first
    return found
