"""A command that is to run elsewhere: checked as far as is cheap, entered into the record as a run that waits, handed over."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mlops_llm import console
from mlops_llm.component import plain
from mlops_llm.entry import config
from mlops_llm.entry.arguments import Arguments, as_typed, quote
from mlops_llm.entry.job import Outcome, Stage
from mlops_llm.errors import UserError
from mlops_llm.launch.place import JOB, Again, Command, Place, is_about_launch, named_variables
from mlops_llm.tracking.run import Opening


class Asked(NamedTuple):
    """What one job is to do."""

    settings: Any
    """Typed."""
    values: Mapping[str, Any]
    """The same, flat."""


def wanted(place: Place) -> bool:
    """Whether a command is to run elsewhere; one that was handed over already is there."""
    return not place.here and JOB not in os.environ


def send(stage: Stage, jobs: Sequence[Asked], opening: Opening, arguments: Arguments, outcome: Outcome) -> int:
    """Hand a command over, with a run that waits for it; return the exit code.

    Args:
        stage: whose command it is.
        jobs: one, or those of a multirun, of which the first stands for all but the variables that they name.
        opening: what is known of its run.
        arguments: as they were typed.
        outcome: is begun as soon as the command is there.

    Raises:
        UserError: it leaves no run, a command in its settings is wrong, the run's name is taken, the record cannot be
            reached, or there is no room for it.
    """
    from mlops_llm.tracking import environment
    from mlops_llm.tracking.opening import schedule, withdraw

    settings, values = jobs[0]
    if not stage.records(settings):
        raise UserError("this command only shows something, and leaves no run", "launch", "type it without launch=")
    variables = tuple(sorted({name for job in jobs for name in needed(stage, job)}))
    again = Again.no if arguments.multirun else Again.resume if stage.resumes else Again.repeat
    run, link = schedule(replace(opening, tags={**opening.tags, **environment.process_tags()}))
    others = [each for each in arguments.overrides if not each.lstrip("+").startswith("run_name=")]
    named = quote(f"run_name={opening.name}", arguments.multirun)
    words = (*arguments.flags, *map(as_typed, others), named)
    place: Place = settings.launch
    told = plain(dict(values))
    command = Command(stage.name, words, opening.name, run, link, again, variables, values=told)
    try:
        said = place.send(command)
    except BaseException:
        with suppress(Exception):  # where the record is away, the next command here takes the run back
            withdraw(run)
        raise
    outcome.begin(opening.name)
    _tell(said, link)
    return place.attend(command)


def sent_to_resume(stage: Stage, ref: str, arguments: Arguments, outcome: Outcome) -> int | None:
    """Hand a `resume=` over if it says launch=; return the exit code, or None where it is to go on here."""
    from mlops_llm.entry.resume import as_begun, checked
    from mlops_llm.tracking.store import connect

    about = [each for each in arguments.overrides if is_about_launch(each)]
    arguments.overrides = [each for each in arguments.overrides if each not in about]
    if not about:
        return None
    place: Any = OmegaConf.to_object(config.composed(stage.name, about).launch)
    if not wanted(place):
        return None
    run = checked(stage, ref, arguments, here=not place.keeps_runs)
    link = connect().link(run.experiment, run.id)
    words = (quote(f"resume={run.name}"),)
    with as_begun(stage, run, connect()) as cfg:
        variables = needed(stage, Asked(config.typed(cfg), config.flat(cfg)))
    command = Command(stage.name, words, run.name, run.id, link, Again.resume, variables, values=run.params)
    said = place.send(command)
    outcome.begin(run.name)
    _tell(said, link)
    return int(place.attend(command))


def needed(stage: Stage, job: Asked) -> tuple[str, ...]:
    """Environment variables that a job's settings name, and those that commands in them do."""
    return tuple(sorted({*named_variables(job.values), *stage.variables(job.settings)}))


def _tell(said: list[str], link: str) -> None:
    """Say where the command is now, where its run is looked at, and what else there is to know."""
    from mlops_llm.tracking.store import connect

    hint = connect().hint()
    page = f"look at it:  {link}" + (f"   (start the page with: {hint})" if hint else "")
    for line in (said[0], page, *said[1:]):
        console.say(line)
