"""The time by the clock that all who share a record see: its server's.

Machines whose clocks differ by an hour must not take each other's living runs for dead, nor dead ones for living. So heartbeats
are told, and judged, by the time that the server's answers carry; without a server by this machine's own clock.
"""

from __future__ import annotations

import os
import time
from email.utils import parsedate_to_datetime

from mlops_llm import console

CLOCK = "MLOPS_LLM_CLOCK"
"""Variable that says by how many seconds this machine's clock is ahead of that of the machine that a process was sent from."""
NOTICED = 5.0
"""Seconds from which a difference counts: an answer tells whole seconds, and takes a while."""
WARNED = 60.0
"""Seconds from which a person is told."""


class _Difference:
    """How far this machine's clock is behind the server's, in seconds."""

    seconds = -float(os.environ.get(CLOCK) or 0)
    told = False


def now() -> float:
    """Seconds since 1970 by the server's clock as far as it is known."""
    return time.time() + _Difference.seconds


def heard(date: str | None) -> None:
    """Take note of the time in a server's answer that has just come, its header `Date`; without one nothing changes."""
    if not date:
        return
    try:
        difference = parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return
    _Difference.seconds = difference if abs(difference) > NOTICED else 0.0
    if abs(difference) > WARNED and not _Difference.told:
        _Difference.told = True
        way = "behind" if difference > 0 else "before"
        console.warn(
            f"this machine's clock is {console.seconds(abs(difference))} {way} the tracking server's; "
            "times in the record are as this clock tells them, who lives is judged by the server's"
        )
