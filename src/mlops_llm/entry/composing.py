"""A command's settings without carrying it out: what a flow must know of its stages before it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.entry import complaints, config
from mlops_llm.entry.arguments import first_choices, read
from mlops_llm.entry.job import Stage
from mlops_llm.errors import UserError
from mlops_llm.launch.place import named_variables
from mlops_llm.tracking import secrets


@dataclass(frozen=True)
class Composed:
    """What is known of a command."""

    values: Mapping[str, Any]
    """Flat settings, with `choice.GROUP` for the component of each group; of a sweep those of its first job."""
    fields: frozenset[str]
    """Names of the stage's settings."""
    folder: str
    """The setting that names the folder of its files; empty where it cannot be chosen."""
    records: bool
    """It leaves a run."""
    resumes: bool
    """Its run can go on after it was cut off."""
    variables: frozenset[str]
    """Environment variables that its settings, or commands in them, name; of a sweep those of all its jobs."""


def compose(stage: Stage, words: Sequence[str]) -> Composed:
    """Compose and check a command's settings.

    Raises:
        UserError: they are wrong, in the words in which the command itself would say it.
    """
    try:
        arguments = read(stage.arrange(list(words)))
        if arguments.help or arguments.informs:
            raise UserError(f"{arguments.flags[0]} only shows something", remedy="leave it out")
        config.register(stage.name, stage.schema, stage.packages)
        config.name_runs(stage.name)
        jobs = first_choices(arguments.overrides) if arguments.multirun else [arguments.overrides]
        made = []
        for overrides in jobs:
            found = config.composed(stage.name, overrides)
            config.drop_unchosen(found, stage.schema, overrides)
            made.append((found, config.typed(found)))
    except Exception as error:
        said = complaints.one_line(error, stage.schema)
        if said is None:
            raise
        raise said from error
    first, settings = config.what(made[0][0]), made[0][1]
    values = config.flat(first)
    secrets.refuse(values)
    return Composed(
        values | {f"choice.{group}": choice for group, choice in config.choices(first).items()},
        frozenset(field.name for field in dataclasses.fields(stage.schema)),
        stage.folder,
        stage.records(settings),
        stage.resumes and not arguments.multirun,
        _variables(stage, made),
    )


def _variables(stage: Stage, jobs: Sequence[tuple[Any, Any]]) -> frozenset[str]:
    """Environment variables that composed settings, each beside its typed form, name."""
    named = (named_variables(config.flat(config.what(each))) for each, _ in jobs)
    told = (stage.variables(settings) for _, settings in jobs)
    return frozenset(name for names in (*named, *told) for name in names)
