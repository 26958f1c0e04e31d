"""Processes of this machine that may end while they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psutil

T = TypeVar("T")


def told(ask: Callable[[], T]) -> T | None:
    """What a process says of itself, as in `told(process.name)`; nothing where it has ended."""
    with suppress(psutil.NoSuchProcess):
        return ask()
    return None


def gone(pid: int) -> bool:
    """Whether a process has ended, buried or not."""
    return told(lambda: psutil.Process(pid).status()) in (None, psutil.STATUS_ZOMBIE)


def ends(pid: int, seconds: float = 60) -> bool:
    """Whether a process ends within some time."""
    until = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
