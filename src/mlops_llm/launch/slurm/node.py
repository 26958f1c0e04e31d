"""`python -m mlops_llm.launch.slurm.node prepare|run|conclude FOLDER`: what the batch script of `launch=slurm` calls.

`prepare` sees what the command line of this start is: that which was typed, or `resume=`. `run` starts it, on the first node.
`conclude` judges how it ended: over, or put back into SLURM's queue. Nothing is pickled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch import nodes, process, stopping
from mlops_llm.launch.jobs import SIGNALLED, State
from mlops_llm.launch.place import JOB, Again
from mlops_llm.launch.slurm import asking
from mlops_llm.launch.slurm.fate import KILLED, SPOKEN, End, Fate, fate
from mlops_llm.launch.slurm.folder import JobFolder, Sheet
from mlops_llm.tracking import queued
from mlops_llm.tracking.outbox import put_aside
from mlops_llm.tracking.queued import Seen
from mlops_llm.tracking.store import address, check_address

_FIRST = "0"
_WRONG = 2
_PATIENCE, _PAUSE = 300.0, 5.0


def main(what: str, folder: JobFolder) -> int:
    """Do one of the three."""
    return {"prepare": prepare, "run": run, "conclude": conclude}[what](folder)


def prepare(folder: JobFolder) -> int:
    """Find the command line of this start; return 0, or 2 where there is none.

    A job that was put back after its run had finished, before anybody noted that, is over: nothing is left to do.
    """
    sheet, progress = folder.sheet(), folder.progress()
    before = _code(folder)
    for each in (folder.code, folder.saved):
        each.unlink(missing_ok=True)
    folder.note(replace(progress, starts=progress.starts + 1, note="", over=False))
    try:
        seen = _seen(sheet, progress.starts)
        if progress.starts and seen and seen.status == "FINISHED":
            console.say(f"run '{sheet.command.name}' is finished, nothing is left to do")
            folder.note(replace(progress, note="", over=True, code=before if before in SPOKEN else 0))
            return 0
        words, adopt = _words(sheet, seen, progress.starts)
    except UserError as error:
        console.fail(str(error))
        folder.note(replace(progress, note=str(error), over=True, code=_WRONG))
        _close(sheet, _WRONG, str(error))
        return _WRONG
    variables = {JOB: f"slurm/{os.environ.get('SLURM_JOB_ID', '')}", stopping.GRACE: str(sheet.grace)}
    variables |= {stopping.SAVED: str(folder.saved), "PYTHONUNBUFFERED": "1"}
    if adopt:
        variables["MLFLOW_RUN_ID"] = sheet.command.run
    folder.begin([f"mlops_llm.{sheet.command.stage}", *words], variables)
    return 0


def run(folder: JobFolder) -> int:
    """Run the command on the first node to its end, and write down how it ended; it starts itself what the others are to do.

    SLURM sends a signal to all processes of a job, or (`proctrack/cgroup`) only to this one, which passes it on; of two in a
    row the command takes one. As long as it has not learned to heed SIGUSR1 and SIGUSR2 it ignores them.
    """
    if os.environ.get("SLURM_NODEID", _FIRST) != _FIRST:
        return 0
    progress, start = folder.progress(), folder.start()
    if progress.over:
        return progress.code
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _wait_on)
    child = subprocess.Popen([sys.executable, "-m", *start["argv"]], env={**os.environ, **start["variables"]})
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    code = child.wait()
    draft = folder.code.with_suffix(".draft")
    draft.write_text(str(code))
    draft.replace(folder.code)
    return code if code >= 0 else 128 - code


def conclude(folder: JobFolder) -> int:
    """Judge how the command ended, and put the job back where it is to go on; return the job's exit code."""
    sheet, progress = folder.sheet(), folder.progress()
    if progress.over:
        return progress.code
    job = os.environ["SLURM_JOB_ID"]
    facts: asking.Facts = {}
    with suppress(UserError):
        facts = asking.facts_of(job)
    if facts and _is_put_back(facts):
        return KILLED
    end = End(
        _code(folder),
        folder.saved.read_text("utf-8") if folder.saved.is_file() else "",
        folder.cancel.exists() or facts.get("JobState") == "CANCELLED",
        asking.is_preempted(facts),
        sheet.command.again,
    )
    found = fate(end, progress.idle, sheet.tries)
    if found.starts:
        folder.note(replace(progress, idle=found.idle, note=found.reason))
        console.say(f"{found.reason}; it goes back into the queue")
        try:
            asking.ask(["scontrol", "requeue", job])
            return KILLED  # not reached for long: SLURM ends this script
        except UserError as error:
            found = Fate(False, found.idle, KILLED, f"{found.reason}; SLURM does not put it back: {error.what}")
    reason = found.reason or (process.last_error(folder.log(job)) if found.code else "")
    folder.note(replace(progress, idle=found.idle, note=reason, over=True, code=found.code))
    if found.code:
        _close(sheet, found.code, reason or f"exit code {found.code}")
    return found.code


def _code(folder: JobFolder) -> int | None:
    """Exit code of the command's last process, where it left one."""
    return int(folder.code.read_text()) if folder.code.is_file() else None


def _close(sheet: Sheet, code: int, reason: str) -> None:
    """Close the run of a job that is over, where its own process did not: nobody may be there who attends it.

    A record that must not be written from this node stays as it is.
    """
    with suppress(UserError):
        _check_record(sheet.host, 0.0)
        queued.close(address(), sheet.command.run, "KILLED" if code in SIGNALLED else "FAILED", reason)


def _is_put_back(facts: asking.Facts) -> bool:
    """Whether SLURM put the job back itself, as one whose node failed; then this script is that of an earlier start."""
    mine = os.environ.get("SLURM_RESTART_COUNT", "0")
    return asking.look_of(facts).state is State.waiting or facts.get("Restarts", mine) != mine


def _seen(sheet: Sheet, starts: int) -> Seen | None:
    """The job's run as the record tells it; None at the first start of a command that takes over the run that waits.

    Raises:
        UserError: the record cannot be used from this node.
    """
    _check_record(sheet.host, _PATIENCE if starts else 0.0)
    return queued.look(address(), sheet.command.run) if starts or not sheet.command.adopts else None


def _words(sheet: Sheet, seen: Seen | None, starts: int) -> tuple[tuple[str, ...], bool]:
    """The command's words at this start, and whether its process takes over the run that waits.

    Raises:
        UserError: what was cut off is not to go on by itself, or nothing is left to do.
    """
    command = sheet.command
    if seen and seen.status == "FINISHED":
        raise UserError(f"run '{command.name}' is finished", "launch", "nothing is left to do")
    if seen and seen.status == "RUNNING" and starts:
        queued.close(address(), command.run, "KILLED", "its process was killed")  # SLURM runs a job once at a time
    if not seen or not command.adopts:
        return command.words, command.adopts
    if command.again is Again.no and seen.status != "SCHEDULED":
        raise UserError("a multirun that was cut off does not go on by itself", "launch", f"resume={command.name}-0, …")
    if command.again is Again.resume and seen.begun:
        return (f"resume={command.run}",), False
    if seen.output:
        put_aside(command.run, Path(command.folder), seen.output, starts)
    return command.words, True


def _check_record(host: str, patience: float) -> None:
    """See that the record can be written from this node, waiting for `patience` seconds for a server that was there before.

    Raises:
        UserError: it does not answer, or is a file that several machines would write.
    """
    nodes.check_record(host)
    until = time.monotonic() + patience
    while True:
        try:
            check_address()
            return
        except UserError:
            if time.monotonic() > until:
                raise
        time.sleep(_PAUSE)


def _wait_on(number: int, frame: Any) -> None:
    """The job may be asked to stop before its command has begun, which is killed later."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], JobFolder(Path(sys.argv[2]))))
