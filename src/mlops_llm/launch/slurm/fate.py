"""What becomes of a job once its command has ended on the node: a rule, without SLURM."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.launch.jobs import AWAY, SIGNALLED
from mlops_llm.launch.place import Again

SPOKEN = (0, 1, 2)
"""Exit codes by which a command says itself how it ended."""
_STOPPED = (*SIGNALLED, -15, -2, -10, -12)
"""Exit codes of a command that a signal asked to end, also before it could answer."""
KILLED = 137


@dataclass(frozen=True)
class End:
    """How a command ended on a node."""

    code: int | None
    """Its exit code, negative for a signal; None where its parent was killed too."""
    saved: str = ""
    """What it saved last in this start."""
    cancelled: bool = False
    """Somebody wants it to stop for good."""
    preempted: bool = False
    """Another job takes its place."""
    again: Again = Again.resume
    """What may be done once it was cut off."""


@dataclass(frozen=True)
class Fate:
    """What happens next."""

    starts: bool
    """It is started again."""
    idle: int
    """Starts in a row that came to nothing."""
    code: int
    """Exit code, where it is over."""
    reason: str


def fate(end: End, idle: int, tries: int) -> Fate:
    """What becomes of a job.

    A command that ended by its own word is over. One that was asked to stop goes on later, any number of times if it saved or
    made room for another; else, as one that was killed, until it was started `tries` times in a row without saving.

    Args:
        end: how its command ended.
        idle: starts in a row before this one that came to nothing.
        tries: at most so many.
    """
    if end.code in SPOKEN:
        return Fate(False, 0, int(end.code or 0), "")
    stopped = end.code in _STOPPED
    if end.cancelled:
        return Fate(False, idle, 143, "cancelled")
    away = "its record did not answer" if end.code == AWAY else ""
    how = "told to stop" if stopped else away or "its process was killed"
    if end.again is Again.no:
        return Fate(False, idle, 143 if stopped else KILLED, f"{how}; its finished parts are recorded")
    if end.saved or (stopped and end.preempted):
        return Fate(True, 0, 0, f"{how}; {end.saved}".removesuffix("; "))
    if idle + 1 >= tries:
        return Fate(False, idle + 1, KILLED, f"{how}, at start {idle + 1} of {tries}")
    return Fate(True, idle + 1, 0, how)
