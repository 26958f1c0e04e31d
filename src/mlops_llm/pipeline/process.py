"""The process of a stage: started as the ordinary command, watched, and stopped with the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
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


def carried_out(
    name: str,
    command: Command,
    words: tuple[str, ...],
    mark: str,
    log: Path,
    given_up: Callable[[], bool],
    *,
    adopt: bool,
) -> int:
    """Run a stage's command to its end; return its exit code, negative for a signal.

    Args:
        name: of the stage, for what is shown.
        command: what it is.
        words: of this start.
        mark: tells the process that it was handed over.
        log: file at whose end its output goes.
        given_up: tells whether it is to be stopped; asked all the time.
        adopt: the run waits in the record, and the process takes it over.

    Raises:
        UserError: its folder or its Python is gone.
        KeyboardInterrupt: the pipeline is stopped; the stage was, before.
    """
    child = process.begin(command, words, mark, log, adopt)
    tag, host = environment.process(child.pid), environment.host()
    job = Job(command, 1, state=State.running, process=tag, host=host)
    shown = showing(name, log)
    try:
        while (code := child.poll()) is None:
            time.sleep(_LOOK)
            shown()
            if given_up():
                process.stop(job, _PATIENCE)
                return child.wait()
        return code
    except KeyboardInterrupt:
        console.say(f"stopping stage {name}")
        process.stop(job, _PATIENCE)
        child.wait()
        raise


def showing(name: str, log: Path) -> Callable[[], None]:
    """A function that says now and then how long a stage runs, with the last line of its output."""
    began = last = time.monotonic()

    def shown() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            console.say(f"  {name}, {console.seconds(now - began)}: {last_line(log)}".rstrip(": "))

    return shown


def last_line(log: Path) -> str:
    """The last line of a file that says something, cut."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [" ".join(line.split()) for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line[:_LONGEST] for line in reversed(lines) if line), "")
