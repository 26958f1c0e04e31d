"""The process of a stage: started as the ordinary command, watched, and stopped with the pipeline."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import console
from mlops_llm.launch import process
from mlops_llm.launch.jobs import Job, State
from mlops_llm.launch.place import Command
from mlops_llm.tracking import environment

_LOOK = 0.1
_EVERY = 15.0
"""Seconds between two lines on a stage that runs."""
_PATIENCE = 60.0
"""Seconds that a stage has to close its run when the pipeline is stopped."""
_LONGEST = 120
_PARTING = re.compile(r"look at it:|run \S+ \([0-9a-f]{32}\)")
"""How the lines begin that a command ends with, which say nothing of its work."""


def _never() -> bool:
    return False


def _nothing(seconds: float) -> str:
    return ""


@dataclass(frozen=True)
class Look:
    """What the pipeline does while a stage runs."""

    log: Path
    """File of the stage's output."""
    outlook: Callable[[float], str] = _nothing
    """From the seconds that it runs to how long all takes that is left, in words."""
    given_up: Callable[[], bool] = _never
    """Whether the stage is to be stopped; asked all the time."""

    def showing(self, name: str) -> Callable[[], None]:
        """A function that says now and then how long a stage runs, what is left, and the last line of its output."""
        began = last = time.monotonic()

        def shown() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _EVERY:
                last = now
                left = self.outlook(now - began)
                head = f"  {name}, {console.seconds(now - began)}" + (f" ({left} left in all)" if left else "")
                console.say(f"{head}: {last_line(self.log)}".rstrip(": "))

        return shown


def carried_out(name: str, command: Command, words: tuple[str, ...], mark: str, look: Look, *, adopt: bool) -> int:
    """Run a stage's command to its end; return its exit code, negative for a signal.

    Args:
        name: of the stage, for what is shown.
        command: what it is.
        words: of this start.
        mark: tells the process that it was handed over.
        look: at it while it runs.
        adopt: the run waits in the record, and the process takes it over.

    Raises:
        UserError: its folder or its Python is gone.
        KeyboardInterrupt: the pipeline is stopped; the stage was, before.
    """
    child = process.begin(command, words, mark, look.log, adopt)
    tag, host = environment.process(child.pid), environment.host()
    job = Job(command, 1, state=State.running, process=tag, host=host)
    shown = look.showing(name)
    try:
        while (code := child.poll()) is None:
            time.sleep(_LOOK)
            shown()
            if look.given_up():
                process.stop(job, _PATIENCE)
                return child.wait()
        return code
    except KeyboardInterrupt:
        console.say(f"stopping stage {name}")
        process.stop(job, _PATIENCE)
        child.wait()
        raise


def last_line(log: Path) -> str:
    """The last line of a file that says something, cut."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [" ".join(line.split()) for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line[:_LONGEST] for line in reversed(lines) if line and not _PARTING.match(line)), "")
