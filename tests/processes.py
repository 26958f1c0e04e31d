"""Processes of this machine that may end while they are asked."""

from __future__ import annotations

import signal
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


def held_once(condition: Callable[[], bool], send: Callable[[int], None], seconds: float = 400) -> None:
    """Hold processes at a moment at which something is so, which they reach in short turns.

    Args:
        condition: what is to be so.
        send: sends them a signal.
        seconds: how long to wait.
    """
    until = time.monotonic() + seconds
    send(signal.SIGSTOP)
    while not condition():
        assert time.monotonic() < until, "what they are to be held at does not come"
        send(signal.SIGCONT)
        time.sleep(0.05)
        send(signal.SIGSTOP)
