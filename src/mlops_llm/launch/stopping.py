"""SIGTERM: a command ends at once or, where the place that it runs in grants it a moment, when it has saved what it did."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mlops_llm.files import write_text

GRACE = "MLOPS_LLM_GRACE"
"""Variable: seconds that a command has to save what it did once a signal asks it to stop; without it, it ends at once."""
SAVED = "MLOPS_LLM_SAVED"
"""Variable: file in which a command says what it saved last, so that a start that came to nothing is known."""
_AGAIN = 0.05


class Terminated(KeyboardInterrupt):
    """A signal asked this process to stop."""


@dataclass
class _Stop:
    """What this process knows of its end."""

    savers: int = 0
    """Blocks that save before they let it stop."""
    asked: bool = False
    late: bool = False
    raised: bool = False


_stop = _Stop()


def heed() -> None:
    """Let SIGTERM raise `Terminated` from now on, and SIGUSR1 and SIGUSR2 too where the environment grants a moment."""
    if threading.current_thread() is not threading.main_thread():
        return
    _stop.asked = _stop.late = _stop.raised = False
    for number in (signal.SIGTERM, *((signal.SIGUSR1, signal.SIGUSR2) if grace() else ())):
        signal.signal(number, _arrived)
    others = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        """A signal that arrives while Python collects garbage raises where nothing can pass it on: let it arrive again."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            others(lost)
            return
        _stop.raised = False
        number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
        threading.Timer(_AGAIN, _thread.interrupt_main, [number]).start()

    sys.unraisablehook = unraisable


def grace() -> float:
    """Seconds that the environment grants; 0 where it grants none."""
    try:
        return max(0.0, float(os.environ.get(GRACE, "0")))
    except ValueError:
        return 0.0


def ask() -> None:
    """Do in this process what a signal that asks it to stop does; from any thread."""
    _thread.interrupt_main(signal.SIGTERM)


def asked() -> bool:
    """Whether this process is to stop and waits for a block of `saves`."""
    return _stop.asked


@contextmanager
def saves() -> Iterator[None]:
    """Whoever is in the block looks at `asked`, saves and raises `Terminated`: until then, or until it is late, a signal waits.

    A signal that nobody heeded in the block is raised at its end.
    """
    _stop.savers += 1
    try:
        yield
    finally:
        _stop.savers -= 1
    if _stop.asked and not _stop.savers:
        _raise()


def saved(what: str) -> None:
    """Tell the place that this process runs in, if it wants to know, that the work got somewhere."""
    file = os.environ.get(SAVED)
    if file:
        write_text(Path(file), what)


def stop() -> NoReturn:
    """Stop, now that everything is saved."""
    _raise()


def _arrived(number: int, frame: Any) -> None:
    """Raise, or note that this process is to stop; of several signals in a row, as SLURM sends them, the first counts."""
    seconds = grace()
    if not seconds:
        raise Terminated
    if _stop.raised:
        return
    if _stop.late or not _stop.savers:
        _raise()
    if not _stop.asked:
        _stop.asked = True
        bound = threading.Timer(seconds, _give_up)
        bound.daemon = True
        bound.start()


def _raise() -> NoReturn:
    _stop.raised = True
    raise Terminated


def _give_up() -> None:
    _stop.late = True
    _thread.interrupt_main(signal.SIGTERM)
