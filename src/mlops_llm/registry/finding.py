"""What a check-up found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How bad it is."""

    fine = "ok"
    warning = "warning"
    broken = "BROKEN"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: State
    what: str
    said: str
    remedy: str = ""
    """What to do; empty where all is well."""


def fine(what: str, said: str) -> Finding:
    """All is well."""
    return Finding(State.fine, what, said)


def warning(what: str, said: str, remedy: str) -> Finding:
    """It works, but not everything does."""
    return Finding(State.warning, what, said, remedy)


def broken(what: str, said: str, remedy: str) -> Finding:
    """Something will fail."""
    return Finding(State.broken, what, said, remedy)
