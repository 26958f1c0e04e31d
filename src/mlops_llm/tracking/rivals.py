"""Who keeps what two took at one moment, such as a name: whoever began first, unless the other was seen first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
_UNDECIDED, _PAUSE = 3.0, 0.05
"""Seconds in which those that take one thing at the same moment see each other; between two looks."""


def rivals(look: Callable[[], Sequence[T]], mine: Callable[[T], bool], stays: Callable[[T], bool] | None = None) -> list[T]:
    """Those to which this process gives way.

    The later gives way. One that began earlier and was seen later waits for that: the other may have looked before.

    Args:
        look: all that hold it, in the order in which they began.
        mine: whether one is this process's.
        stays: whether one is known to stay; None where those stay that are there after a while.
    """
    until = time.monotonic() + _UNDECIDED
    while True:
        there = look()
        others = [each for each in there if not mine(each)]
        if not others or not mine(there[0]):
            return others
        staying = [each for each in others if stays(each)] if stays else []
        if staying:
            return staying
        if time.monotonic() > until:
            return [] if stays else others
        time.sleep(_PAUSE)
