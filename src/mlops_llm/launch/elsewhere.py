"""The base of places on other machines: a command is begun there, looked at, stopped, and what it made is brought back."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, NamedTuple, TypeVar

from mlops_llm import component, console
from mlops_llm.errors import UserError
from mlops_llm.launch import process, sent
from mlops_llm.launch.jobs import SIGNALLED, State
from mlops_llm.launch.place import PLACES, Command, Place
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.stopping import Terminated
from mlops_llm.tracking import queued
from mlops_llm.tracking.refusals import AwayError
from mlops_llm.tracking.store import address

DETACHED, TERMINATED = 130, 143
"""Exit codes of who stopped watching, by Ctrl-C and by SIGTERM."""
Told = TypeVar("Told")
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_ASK = "python -m mlops_llm.launch"


class LostError(UserError):
    """The other machine cannot be reached at the moment; the job there may well go on."""


class Look(NamedTuple):
    """How a job is, as far as its place can tell."""

    state: State
    """`failed` also of one that ended without a word; the run in the record then tells more."""
    code: int | None = None
    """Exit code of its process, where it left one."""
    note: str = ""
    """What a person should know: why it waits, where it runs, why it ended."""


@dataclass
class Elsewhere(Place, ABC):
    """Run the command on another machine."""

    here: ClassVar[bool] = False
    wait: bool = True
    """Stay until it ends, showing what it prints; Ctrl-C leaves it alone, op=attend comes back to it."""

    @abstractmethod
    def begin(self, command: Command) -> dict[str, str]:
        """Start a command, or put it where it will be started; return by what it is found again.

        Raises:
            UserError: it cannot be; then nothing of it is left there.
        """

    @abstractmethod
    def look(self, job: Sent) -> Look:
        """How a job is.

        Raises:
            LostError: the place cannot be reached.
        """

    @abstractmethod
    def output(self, job: Sent, start: int) -> bytes:
        """What it has printed, from byte `start` on.

        Raises:
            LostError: the place cannot be reached.
        """

    @abstractmethod
    def stop(self, job: Sent, patience: float) -> None:
        """Ask it to end; what still is there after `patience` seconds is killed.

        Raises:
            LostError: the place cannot be reached.
        """

    def bring(self, job: Sent) -> list[str]:
        """Bring back what an ended job made, as far as it is not here yet; return lines that say what and where.

        Raises:
            LostError: the place cannot be reached.
        """
        return []

    def strike(self, job: Sent) -> None:
        """Forget what is kept here for a job that nobody will ask for again."""

    def attended(self, job: Sent) -> AbstractContextManager[None]:
        """What stands as long as somebody stays with the job."""
        return nullcontext()

    def where(self, handle: Mapping[str, str]) -> str:
        """How a person calls the place of a job."""
        return component.name_of(self)

    def send(self, command: Command) -> list[str]:
        """Begin the command there."""
        job = Sent(command, component.name_of(self), component.plain(self)["settings"], {}, time.time())
        sent.keep(job)  # first, so that no job runs that nobody knows of
        try:
            queued.note(address(), command.run, f"on its way by {component.name_of(self)}")
            handle = self.begin(command)
        except BaseException:
            sent.forget(command.run)
            raise
        sent.change(command.run, lambda each: replace(each, handle=handle))
        try:
            queued.note(address(), command.run, self.where(handle))
        except UserError as error:  # the command is there all the same
            console.warn(str(error))
        watch = f"watch it:    {_ASK} op=attend op.job={command.name}   (all jobs: op=list; take it back: op=cancel)"
        return [f"sent to {self.where(handle)}: run {command.name} ({command.run})", watch]

    def attend(self, command: Command) -> int:
        """Stay with it, if `wait` says so."""
        return attend(sent.required(command.run)) if self.wait else 0


def place_of(job: Sent) -> Elsewhere:
    """The place of a job, with the settings that it was sent with."""
    component.load(PLACES)
    place: Elsewhere = component.build("launch", job.place, job.settings)
    return place


def attend(job: Sent) -> int:
    """Show what a job prints until it ends, then bring back what it made; return its exit code.

    A lost connection is waited for. Ctrl-C only ends the watching.
    """
    place = place_of(job)
    try:
        with place.attended(job):
            show(place, job)
            return conclude(place, job)
    except KeyboardInterrupt as stop:
        again = f"{_ASK} op=attend op.job={job.command.name}"
        console.warn(f"{job.command.name} goes on without being watched; come back with: {again}   (end it: op=cancel)")
        return TERMINATED if isinstance(stop, Terminated) else DETACHED


def conclude(place: Elsewhere, job: Sent) -> int:
    """Note how a job ended, close its run where its process did not, bring back what it made; return its exit code."""
    look = _patiently(lambda: place.look(job))
    state, code, reason = _patiently(lambda: _verdict(job, look))
    for line in _patiently(lambda: place.bring(job)):
        console.say(line)
    if state is not State.done:
        status = "KILLED" if state is State.cancelled else "FAILED"
        where = process.address_of(job.command, os.environ)
        _patiently(lambda: queued.close(where, job.command.run, status, reason))
    noted = sent.ended(job, state, code, reason)
    if code not in (0, 1, 2):
        console.warn(f"{job.command.name} {noted.state.name}: {noted.reason}")
    return 0 if noted.state is State.done else code if code is not None and code > 0 else 1


def _verdict(job: Sent, look: Look) -> tuple[State, int | None, str]:
    """What became of a job: its process's own word counts, else the record's, else what the place saw."""
    if look.state is State.cancelled or look.code in SIGNALLED:
        return State.cancelled, look.code, look.note or "ended by a signal"
    if look.code == 0:
        return State.done, 0, ""
    if look.code is not None:
        return State.failed, look.code, look.note or f"exit code {look.code}"
    seen = queued.look(process.address_of(job.command, os.environ), job.command.run)
    if seen.status == "FINISHED":
        return State.done, 0, ""
    return State.failed, 1 if seen.status == "FAILED" else None, look.note or "its process ended without a word"


def show(place: Elsewhere, job: Sent, follow: bool = True) -> None:
    """Show what a job has printed, or with `follow` what it prints until it ends.

    Raises:
        UserError: the place does not have it.
    """
    if not job.handle and not job.state.ended:
        remedy = f"take it back: {_ASK} op=cancel op.job={job.command.name}"
        raise UserError("is still being sent, or the command that sent it was cut off", job.command.name, remedy)
    shown = 0
    while True:
        look = _patiently(lambda: place.look(job))  # before the reading, so that an ended job is read to its end
        text = _patiently(partial(place.output, job, shown))
        over = look.state.ended or not follow
        whole = text if over else text[: text.rfind(b"\n") + 1]
        for line in whole.decode("utf-8", "replace").splitlines():
            console.say(line)
        shown += len(whole)
        if over:
            return
        time.sleep(_PAUSE)


def _patiently(ask: Callable[[], Told]) -> Told:
    """What `ask` answers, as soon as the place, and the record, can be reached."""
    pause = _PAUSE
    while True:
        try:
            told = ask()
        except (LostError, AwayError) as error:
            if pause == _PAUSE:
                console.warn(f"{error}; waiting for it, the job there goes on")
            pause = min(2 * pause, _LONGEST_PAUSE)
            time.sleep(pause)
            continue
        if pause != _PAUSE:
            console.say("reached again")
        return told
