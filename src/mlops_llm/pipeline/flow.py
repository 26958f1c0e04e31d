"""A flow that was read and checked whole: every command, every hand-off, every condition, in the order of the work."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlops_llm import digest, order
from mlops_llm.component import near
from mlops_llm.data.ref import locate
from mlops_llm.errors import UserError
from mlops_llm.files import check_part
from mlops_llm.launch.place import named_variables
from mlops_llm.models.ref import resolve
from mlops_llm.pipeline import condition, search, words
from mlops_llm.pipeline.condition import Condition
from mlops_llm.pipeline.config import Method, Pipeline, Server, Stage
from mlops_llm.pipeline.made import WINNER
from mlops_llm.pipeline.words import Words

_PLACEHOLDER = "http://127.0.0.1:9"
"""Stands for a server's address where a command is only checked."""
_HOLDERS = ("train", "surgery", "registry")
"""Rooms whose models are files; an evaluation may ask a server's by any name."""
_HERE = ("models:/", "runs:/", ".", "/", "~")
"""How refs begin of models that the record or this machine has; the hub is asked when it is time."""
_GIVEN = ("seed",)
"""Settings of the pipeline that stages have which do not name their own."""


class Composed(Protocol):
    """What the entry room knows of a command."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Flat settings, with `choice.GROUP` for components."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """Names of the settings."""
        ...

    @property
    def folder(self) -> str:
        """The setting that names the folder of its files, or nothing."""
        ...

    @property
    def records(self) -> bool:
        """It leaves a run."""
        ...

    @property
    def resumes(self) -> bool:
        """Its run can go on."""
        ...

    @property
    def variables(self) -> frozenset[str]:
        """Environment variables that it names."""
        ...


Compose = Callable[[str, Sequence[str]], Composed]
"""From a room and the words of a command to what is known of it; raises UserError as the command would."""


@dataclass(frozen=True)
class Step:
    """A stage in its place."""

    name: str
    stage: Stage
    words: Words
    when: Condition | None = None

    @property
    def operation(self) -> str:
        """What it does, in a word or two: `train dpo`, `surgery merge_slerp`."""
        said = self.words.value("op") or self.words.value("algo") or self.words.value("experiment") or ""
        return f"{self.words.room} {said or ('score' if self.words.room == 'eval' else '')}".strip()


@dataclass(frozen=True)
class Flow:
    """Steps that can be carried out."""

    settings: Pipeline
    steps: Sequence[Step]
    compose: Compose
    known: dict[str, Composed] = field(default_factory=dict)
    """Of each step's command."""
    folder: Path = field(default_factory=Path.cwd)
    """Where the pipeline was begun: its stages work there."""

    @property
    def addresses(self) -> dict[str, str]:
        """An address for each server while none runs."""
        return dict.fromkeys(self.settings.servers, _PLACEHOLDER)

    def bare(self, step: Step) -> Words:
        """A step's command before anything is there that it takes."""
        return self._before(step, self.addresses)

    def named(self, step: Step) -> Words:
        """The same for a person: servers by their names."""
        return self._before(step, {name: f"server:{name}" for name in self.settings.servers})

    def _before(self, step: Step, addresses: Mapping[str, str]) -> Words:
        return self.whole(step, step.words.put_in(lambda name, what: f"stage:{name}/{what}".rstrip("/"), addresses))

    def whole(self, step: Step, settled: Words) -> Words:
        """A step's command with what the pipeline sets of it.

        Args:
            step: whose.
            settled: the command with refs put in.
        """
        fields = self.known[step.name].fields if step.name in self.known else frozenset[str]()
        own = [f"{key}={getattr(self.settings, key)}" for key in _GIVEN if key in fields and settled.value(key) is None]
        return settled.plus([*own, *([f"project={self.settings.project}"] if "project" in fields else [])])

    def composed(self, step: Step, found: Words) -> Composed:
        """What is known of a step's command.

        Raises:
            UserError: its settings are wrong; the stage is named.
        """
        try:
            return self.compose(found.room, found.settings)
        except UserError as error:
            where = f"stages.{step.name}" + (f", {error.where}" if error.where else "")
            raise UserError(error.what, where, error.remedy) from error

    def left_out(self, step: Step) -> str:
        """Why a step is left out whatever other steps come to; empty where it is not, or that is not known yet.

        Raises:
            UserError: words are compared by size.
        """
        if step.when is None or step.when.handoffs:
            return ""
        holds, said = step.when.holds(lambda name, what: "")
        return "" if holds else said

    def served_by(self, step: Step) -> str:
        """The programs that a step's servers are, which its result depends on: their commands and the files named there."""
        commands = [self.settings.servers[each].command for each in step.words.servers]
        files = [Path(word) for each in commands for word in shlex.split(each)]
        return "; ".join([*commands, *(digest.raw(file) for file in files if file.is_file())])


def checked(settings: Pipeline, compose: Compose, rooms: Sequence[str]) -> Flow:
    """Check a flow whole, before anything begins.

    Args:
        settings: of the pipeline.
        compose: checks a command.
        rooms: that there are.

    Raises:
        UserError: a stage is unknown, waits for itself, takes what it does not need, or its command is wrong.
    """
    if not settings.stages:
        raise UserError("names no stages", "stages", "choose a flow: +experiment=rlhf_short")
    for name in settings.stages:
        check_part(name, "stages")  # its run's folder is called so
    for name, server in settings.servers.items():
        _check_server(name, server)
    steps = {name: _step(name, stage, settings, rooms) for name, stage in settings.stages.items()}
    for step in steps.values():
        _check_needs(step, steps)
    try:
        names = order.ordered({name: step.stage.needs for name, step in steps.items()})
    except order.CircleError as error:
        raise UserError(f"waits for itself: {error}", f"stages.{error.names[0]}.needs", "take one of these out") from error
    for step in steps.values():
        _check_handoffs(step, steps)
        if step.stage.search.method is Method.optuna:
            search.checked(step.name, step.stage.search)
    flow = Flow(settings, [steps[name] for name in names], compose)
    for step in flow.steps:
        known = flow.known[step.name] = flow.composed(step, flow.bare(step))
        if not known.records:
            raise UserError("leaves no run", f"stages.{step.name}.command", "take it out: it only shows something")
        if step.words.room == "registry" and step.words.value("op") == "serve" and not known.values.get("op.check"):
            raise UserError("serves until it is stopped", f"stages.{step.name}.command", "add op.check=true: start, prove, end")
        if step.stage.search.method is Method.optuna:
            _check_search(flow, step)
        if not flow.left_out(step) and not step.stage.needs:
            _check_inputs(step, known)
    return flow


def variables(settings: Pipeline, compose: Compose, rooms: Sequence[str]) -> set[str]:
    """Environment variables that the commands of a flow's stages, their tries and its servers name.

    What only the machine where it will run can tell is left out.

    Raises:
        UserError: a command is wrong.
    """
    steps = [_step(name, stage, settings, rooms) for name, stage in settings.stages.items()]
    flow = Flow(settings, steps, compose)
    commands = [(step, each) for step in steps if not flow.left_out(step) for each in _commands(flow, step)]
    of_stages = (flow.composed(step, each).variables for step, each in commands)
    of_servers = (named_variables(_typed(server.command)) for server in settings.servers.values())
    return {name for names in (*of_stages, *of_servers) for name in names}


def _commands(flow: Flow, step: Step) -> list[Words]:
    """A step's command; of a search the commands of tries that name every choice."""
    bare = flow.bare(step)
    if step.stage.search.method is Method.none:
        return [bare]
    tries = search.examples(step.name, step.stage.search)
    return [bare, *(bare.plus(f"{key}={value}" for key, value in each.items()) for each in tries)]


def _typed(command: str) -> dict[str, str]:
    """Settings in a command line."""
    try:
        words = shlex.split(command)
    except ValueError:  # it is told by who starts it
        return {}
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def _step(name: str, stage: Stage, settings: Pipeline, rooms: Sequence[str]) -> Step:
    if stage.retries < 0:
        raise UserError(f"is {stage.retries}", f"stages.{name}.retries", "give a number from 0")
    found = words.read(name, stage, rooms)
    unknown = next((each for each in found.servers if each not in settings.servers), None)
    if unknown:
        remedy = f"there are: {', '.join(settings.servers) or 'none'}"
        raise UserError(f"there is no server '{unknown}'{near(unknown, settings.servers)}", f"stages.{name}.command", remedy)
    return Step(name, stage, found, condition.read(stage.when, f"stages.{name}.when") if stage.when else None)


def _check_server(name: str, server: Server) -> None:
    where, remedy = f"servers.{name}.command", "write one: python server.py --port {port}"
    try:
        if not shlex.split(server.command):
            raise UserError("names no command", where, remedy)
    except ValueError as error:
        raise UserError(f"has an open quote ({error})", where, remedy) from error


def _check_needs(step: Step, steps: Mapping[str, Step]) -> None:
    for name in step.stage.needs:
        if name not in steps:
            remedy = f"there are: {', '.join(steps)}"
            raise UserError(f"there is no stage '{name}'{near(name, steps)}", f"stages.{step.name}.needs", remedy)


def _check_handoffs(step: Step, steps: Mapping[str, Step]) -> None:
    """See that what a step takes, or asks for, is of stages that come before it."""
    before = _before(step, steps)
    taken = [(name, "command") for name, _ in step.words.handoffs]
    taken += [(name, "when") for name, _ in (step.when.handoffs if step.when else ())]
    for name, setting in taken:
        where = f"stages.{step.name}.{setting}"
        if name not in steps:
            remedy = f"there are: {', '.join(each for each in steps if each != step.name)}"
            raise UserError(f"takes of stage '{name}', which there is not{near(name, steps)}", where, remedy)
        if name not in before:
            what = f"takes of stage '{name}', which it does not need"
            raise UserError(what, where, f"write needs: [{', '.join([*step.stage.needs, name])}]")
    for name, what in step.words.handoffs:
        if what == WINNER and steps[name].words.room != "eval":
            what = f"takes the winner of stage '{name}', which compares nothing"
            raise UserError(what, f"stages.{step.name}.command", "name a stage with eval op=compare")


def _before(step: Step, steps: Mapping[str, Step]) -> set[str]:
    """Names of all steps that come before one, also by way of others."""
    found, ahead = set[str](), list(step.stage.needs)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += steps[name].stage.needs
    return found


def _check_search(flow: Flow, step: Step) -> None:
    """See that there is each setting that a search varies, with the first and the last of its values."""
    for key, between in step.stage.search.over.items():
        for value in (between[0], between[-1]):
            try:
                flow.compose(step.words.room, flow.bare(step).plus([f"{key}={value}"]).settings)
            except UserError as error:
                where = f"stages.{step.name}.search.over.{key}"
                raise UserError(str(error), where, "name another setting, or others of its values") from error


def _check_inputs(step: Step, known: Composed) -> None:
    """See that the rows and the models are there which a step names that needs no other."""
    try:
        if ref := known.values.get("dataset"):
            locate(str(ref))
        if step.words.room in _HOLDERS:
            named = known.values.get("model"), *(known.values.get("models") or ()), known.values.get("base")
            for ref in (str(each) for each in named if each):
                if ref.startswith(_HERE):
                    resolve(ref)
    except UserError as error:
        raise UserError(error.what, f"stages.{step.name}, {error.where}", error.remedy) from error
