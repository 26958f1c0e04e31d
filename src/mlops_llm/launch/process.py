"""The processes of jobs: each leads a process group of its own, so that it outlives the worker and can be stopped whole."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from mlops_llm.errors import UserError
from mlops_llm.launch.jobs import Job
from mlops_llm.launch.place import JOB, Command
from mlops_llm.tracking import environment, secrets
from mlops_llm.tracking.opening import PARENT
from mlops_llm.tracking.store import PATIENCE

_LOOK = 0.1
_PATIENCE = 600
"""Seconds that a job waits at its start for a server that went away since the worker saw it."""
OWN = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", JOB, PARENT)
"""Variables of the worker's that say nothing of its jobs."""


def address_of(command: Command, here: Mapping[str, str]) -> str:
    """Address of a command's record; one with a password is taken from this process's environment.

    Raises:
        UserError: it is not there.
    """
    known = command.environment.get("MLFLOW_TRACKING_URI")
    if known:
        return known
    mine = here.get("MLFLOW_TRACKING_URI", "")
    if secrets.mask_address(mine) != command.tracking:
        remedy = "start the worker with the variable as it was when the command was typed"
        raise UserError(f"the password for {command.tracking} is not here", "MLFLOW_TRACKING_URI", remedy)
    return mine


def begin(command: Command, words: tuple[str, ...], mark: str, log: Path, adopt: bool) -> subprocess.Popen[bytes]:
    """Start a job's process; its output goes to the end of `log`.

    Args:
        command: what the job is.
        words: the command line of this start.
        mark: value of the variable `JOB`, by which `lost` finds the process.
        log: file of the job's output.
        adopt: the run waits in the record, and the process takes it over.

    Raises:
        UserError: its folder or its Python is gone, or the address of its record is not known here.
    """
    given = {name: value for name, value in os.environ.items() if name not in OWN}
    given |= {**command.environment, "MLFLOW_TRACKING_URI": address_of(command, os.environ), JOB: mark}
    given |= {"PYTHONUNBUFFERED": "1", PATIENCE: given.get(PATIENCE) or str(_PATIENCE)}
    given |= {"MLFLOW_RUN_ID": command.run} if adopt else {}
    argv = [command.python, "-m", f"mlops_llm.{command.stage}", *words]
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                argv,
                cwd=command.folder,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            remedy = "bring it back, or type the command again where it should run"
            raise UserError(error.strerror or str(error), str(error.filename or command.folder), remedy) from error


def lives(job: Job) -> bool:
    """Whether the job's last process is there; one that only waits to be collected is not."""
    return job.host == environment.host() and environment.lives(job.process)


def lost(mark: str) -> str:
    """`pid:start time` of a process that was started with this mark and not noted; empty where there is none."""
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(each.pid) == each.pid and each.environ().get(JOB) == mark:
                return environment.process(each.pid)
    return ""


def stop(job: Job, patience: float) -> None:
    """Ask the job's process group to end (SIGTERM); what still is there after `patience` seconds is killed."""
    if not lives(job):
        return
    pid = _pid(job)
    with suppress(psutil.Error, ProcessLookupError):  # it may end at any moment
        family = psutil.Process(pid).children(recursive=True)
        os.killpg(pid, signal.SIGTERM)
        until = time.monotonic() + patience
        while lives(job) and time.monotonic() < until:
            time.sleep(_LOOK)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        for each in family:  # those that left the group
            with suppress(psutil.Error):
                each.kill()


def last_error(log: Path) -> str:
    """What the job's last error line says; empty where there is none."""
    if not log.exists():
        return ""
    lines = log.read_text("utf-8", "replace").splitlines()[-200:]
    found = [line.partition("error: ")[2] for line in lines if line.startswith("error: ")]
    return found[-1][:300] if found else ""


def _pid(job: Job) -> int:
    return int(job.process.partition(":")[0])
