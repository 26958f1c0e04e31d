"""A stage's command: its room, its settings, and what of them stands for something that is not there yet."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.pipeline.config import Stage

_OWN = ("run_name", "resume", "output", "folder", "project", "seed")
_REFUSED = {"run_name": "runs are named after the pipeline", "resume": "the pipeline resumes what was stopped"}
_NAME = r"[\w-]+"
HANDOFF = re.compile(rf"(?<![\w:/.@-])stage:({_NAME})(?:/([\w./:@+-]+))?")
SERVED = re.compile(rf"(?<![\w:/.@-])server:({_NAME})(/[\w./-]*)?")


@dataclass(frozen=True)
class Words:
    """A stage's command as the flow has it."""

    room: str
    """`train`, `eval`, …"""
    settings: tuple[str, ...]
    """Flags and overrides, as typed."""

    @property
    def handoffs(self) -> list[tuple[str, str]]:
        """Stage and what of it, of each `stage:NAME/WHAT`."""
        return [(found[1], found[2] or "") for each in self.settings for found in HANDOFF.finditer(each)]

    @property
    def servers(self) -> list[str]:
        """Names of the servers that it asks."""
        return list(dict.fromkeys(found[1] for each in self.settings for found in SERVED.finditer(each)))

    def value(self, key: str) -> str | None:
        """What a setting is given, as typed."""
        return next((each.partition("=")[2] for each in reversed(self.settings) if key_of(each) == key), None)

    def put_in(self, handed: Callable[[str, str], str], served: Mapping[str, str]) -> Words:
        """The command with refs in place of hand-offs, and addresses in place of servers.

        Args:
            handed: from stage and what of it to the ref.
            served: server -> address, `http://127.0.0.1:PORT`.
        """
        settled = []
        for each in self.settings:
            text = HANDOFF.sub(lambda found: handed(found[1], found[2] or ""), each)
            settled.append(SERVED.sub(lambda found: served[found[1]] + (found[2] or ""), text))
        return Words(self.room, tuple(map(_each_once, settled) if self.room == "eval" else settled))

    def plus(self, others: Iterable[str]) -> Words:
        """The command with more settings; of the same setting the later one counts."""
        return Words(self.room, merged(self.settings, others))

    def shown(self) -> str:
        """The command for a shell."""
        return shlex.join(["python", "-m", f"mlops_llm.{self.room}", *self.settings])


def read(name: str, stage: Stage, rooms: Sequence[str]) -> Words:
    """The command of a stage.

    Raises:
        UserError: it is none; the stage is named.
    """
    where = f"stages.{name}.command"
    try:
        words = shlex.split(stage.command)
    except ValueError as error:
        raise UserError(f"has an open quote ({error})", where, "close it, or put it into double quotes") from error
    if not words:
        raise UserError("names no command", where, "write one: train +experiment=sft_sales")
    room, settings = words[0].removeprefix("mlops_llm."), words[1:]
    if room not in rooms:
        raise UserError(f"there is no stage '{room}'{near(room, rooms)}", where, f"begin with one of: {', '.join(rooms)}")
    found = Words(room, merged(settings, stage.overrides))
    for each in found.settings:
        key = key_of(each)
        if key in _REFUSED:
            raise UserError(f"is not for a stage: {_REFUSED[key]}", f"stages.{name}, {key}", "leave it out")
        if key.partition(".")[0] in ("launch", "hydra"):
            raise UserError("is not for a stage", f"stages.{name}, {key}", "give it to the pipeline")
    return found


def merged(settings: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Settings, of which a later one takes the place of an earlier one of the same key."""
    found: dict[str, str] = {}
    for each in (*settings, *others):
        found[key_of(each)] = each
    return tuple(found.values())


def _each_once(setting: str) -> str:
    """A list of models in which one that two stages hand on stands once."""
    found = re.fullmatch(r"models=\[(.*)\]", setting)
    return f"models=[{','.join(dict.fromkeys(found[1].split(',')))}]" if found else setting


def key_of(setting: str) -> str:
    """The key of an override; of a flag the flag itself."""
    return setting if setting.startswith("-") else re.split("[=@]", setting.lstrip("+~"))[0]
