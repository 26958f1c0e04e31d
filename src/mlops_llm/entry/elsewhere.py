"""A command that is to run elsewhere: checked as far as is cheap, entered into the record as a run that waits, handed over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from mlops_llm import console
from mlops_llm.component import plain
from mlops_llm.entry import config
from mlops_llm.entry.arguments import Arguments, as_typed, quote
from mlops_llm.entry.job import Outcome, Stage
from mlops_llm.errors import UserError
from mlops_llm.launch.place import JOB, Again, Command, Place, is_about_launch, named_variables
from mlops_llm.tracking.run import Opening


def wanted(place: Place) -> bool:
    """Whether a command is to run elsewhere; one that was handed over already is there."""
    return not place.here and JOB not in os.environ


def send(
    stage: Stage, settings: Any, opening: Opening, arguments: Arguments, values: Mapping[str, Any], outcome: Outcome
) -> int:
    """Hand a command over, with a run that waits for it; return the exit code.

    Args:
        stage: whose command it is.
        settings: of the command, or of a multirun's first job.
        opening: what is known of its run.
        arguments: as they were typed.
        values: the settings, flat: they name the variables that the command reads.
        outcome: is begun as soon as the command is there.

    Raises:
        UserError: it leaves no run, the run's name is taken, the record cannot be reached, or there is no room for it.
    """
    from mlops_llm.tracking import environment
    from mlops_llm.tracking.opening import schedule, withdraw

    if not stage.records(settings):
        raise UserError("this command only shows something, and leaves no run", "launch", "type it without launch=")
    again = Again.no if arguments.multirun else Again.resume if stage.resumes else Again.repeat
    run, link = schedule(replace(opening, tags={**opening.tags, **environment.process_tags()}))
    others = [each for each in arguments.overrides if not each.lstrip("+").startswith("run_name=")]
    named = quote(f"run_name={opening.name}", arguments.multirun)
    words = (*arguments.flags, *map(as_typed, others), named)
    place: Place = settings.launch
    told = plain(dict(values))
    command = Command(stage.name, words, opening.name, run, link, again, named_variables(values), values=told)
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
    from mlops_llm.entry.resume import checked
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
    command = Command(stage.name, words, run.name, run.id, link, Again.resume, named_variables(run.params), values=run.params)
    said = place.send(command)
    outcome.begin(run.name)
    _tell(said, link)
    return int(place.attend(command))


def _tell(said: list[str], link: str) -> None:
    """Say where the command is now, where its run is looked at, and what else there is to know."""
    from mlops_llm.tracking.store import connect

    hint = connect().hint()
    page = f"look at it:  {link}" + (f"   (start the page with: {hint})" if hint else "")
    for line in (said[0], page, *said[1:]):
        console.say(line)
