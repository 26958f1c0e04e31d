"""A multirun as an array of SLURM's (`hydra/launcher=submitit_slurm`): what Hydra's launcher and submitit leave to us.

Submitit pickles a function and its arguments for each job. Of ours these are the task, which holds the stage, and what Hydra
must know to compose the job's settings; no model, rows or variables, and nothing is read back from a pickle that a job wrote.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from mlops_llm import console
from mlops_llm.errors import UserError, need
from mlops_llm.files import write_text
from mlops_llm.launch import stopping
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.jobs import State
from mlops_llm.launch.slurm import asking
from mlops_llm.launch.slurm.fate import End, fate
from mlops_llm.tracking.store import address, check_sharing

LAUNCHER = "submitit_slurm"
_SETTING = f"hydra/launcher={LAUNCHER}"
_LOOK, _PAUSE = 10.0, 1.0
"""Seconds between two questions to SLURM, and between two looks for a file."""
_FORGOTTEN = 12
"""Answers in a row by which SLURM does not know a job until it is lost."""
_SPARE = 10
_TRIES = 3
"""Starts in a row at most in which a job is told to stop before it has saved anything."""
_STOPPED = 143


def check() -> None:
    """See that an array can be sent from here.

    Raises:
        UserError: submitit or SLURM is not installed, its controller is away, or the record is a file that several machines
            would break.
    """
    need("hydra_plugins.hydra_submitit_launcher", "slurm")
    asking.require(_SETTING, "sbatch", "srun", "sacct", "scontrol")
    try:
        asking.ask(["scontrol", "ping"])
    except LostError as error:
        raise UserError(f"SLURM does not answer ({error.what})", _SETTING, "try again, or see: scontrol ping") from error
    check_sharing(address())


@contextmanager
def waited_for(notice: float, nothing: Callable[[], Any]) -> Iterator[None]:
    """Let Hydra's launcher wait for every job of the array, whatever became of the others, and end them all at Ctrl-C.

    Submitit would end the waiting at the first that died, and would read what the jobs pickled.

    Args:
        notice: seconds before its end at which a job is told (`hydra.launcher.signal_delay_s`).
        nothing: makes what stands for a job's result; the record has it.

    Raises:
        UserError: SLURM refuses the array.
    """
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmJob

    sent = set[str]()

    def results(job: Any) -> Sequence[Any]:
        sent.add(str(job.job_id).partition("_")[0])
        _wait(job)
        return [nothing()]

    variables = {stopping.GRACE: str(max(1.0, notice - _SPARE))}
    with (
        mock.patch.object(SlurmJob, "results", results),
        mock.patch.dict(os.environ, variables),
    ):
        try:
            yield
        except FailedJobError as error:
            raise UserError(f"SLURM does not take the jobs ({asking.said('sbatch', str(error))})", "hydra.launcher") from error
        except KeyboardInterrupt:
            if sent:
                console.say(f"taking back slurm job {' '.join(sent)}")
                with suppress(UserError):
                    asking.ask(["scancel", *sent])
            raise


def _wait(job: Any) -> None:
    """Wait for a job to end: to leave its result's file, or to be no more by SLURM's word, as one that died without a word."""
    looked, forgotten = 0.0, 0
    while not job.paths.result_pickle.exists():
        if time.monotonic() - looked >= _LOOK:
            looked = time.monotonic()
            try:
                if asking.look_of(asking.facts_of(str(job.job_id))).state.ended:
                    return
                forgotten = 0
            except asking.ForgottenError:
                forgotten += 1
                if forgotten > _FORGOTTEN:
                    return
            except UserError:  # SLURM may be away for a while
                pass
        time.sleep(_PAUSE)


def is_job() -> bool:
    """Whether this process is a job of an array."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and bool(_number())


def restarts() -> int:
    """How often SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


@contextmanager
def leaves() -> Iterator[None]:
    """A job that is told to stop saves and goes back into SLURM's queue, as long as `fate` has hope for it.

    What it saved, and how many starts in a row came to nothing, lies beside what submitit keeps of it.
    """
    from submitit import JobEnvironment

    stopping.heed()
    kept = JobEnvironment().paths.folder
    saved, idle = kept / "saved", kept / "idle"
    saved.unlink(missing_ok=True)
    try:
        with mock.patch.dict(os.environ, {stopping.SAVED: str(saved)}):
            yield
    except stopping.Terminated:
        with suppress(UserError):
            _put_back(saved, idle)
        raise


def _put_back(saved: Path, idle: Path) -> None:
    """Put this job, which was told to stop, back into the queue or say why it is over."""
    facts = asking.facts_of(_number())
    end = End(
        _STOPPED,
        saved.read_text("utf-8") if saved.is_file() else "",
        cancelled=asking.look_of(facts).state is not State.running,
        preempted=asking.is_preempted(facts),
    )
    found = fate(end, int(idle.read_text()) if idle.is_file() else 0, _TRIES)
    if found.starts:
        write_text(idle, str(found.idle))
        asking.ask(["scontrol", "requeue", _number()])
    elif not end.cancelled:
        console.warn(f"{found.reason}: it does not go back into the queue")


def _number() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
