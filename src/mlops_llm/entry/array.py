"""The jobs of a multirun in a cluster's array (`hydra/launcher=submitit_slurm`): waited for, started again, closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.entry.arguments import Arguments
from mlops_llm.entry.job import Outcome, Stage, job_name
from mlops_llm.errors import UserError
from mlops_llm.launch.slurm import array
from mlops_llm.tracking import ledger, queued
from mlops_llm.tracking.outbox import put_aside


def launching(arguments: Arguments) -> AbstractContextManager[None] | None:
    """What stands while a cluster runs the jobs; None where they run here.

    Raises:
        UserError: they cannot be sent from here.
    """
    if arguments.value("hydra/launcher") != array.LAUNCHER:
        return None
    from hydra.core.utils import JobReturn, JobStatus

    array.check()
    notice = float(arguments.value("hydra.launcher.signal_delay_s") or 120)
    return array.waited_for(notice, lambda: JobReturn(_return_value=None, status=JobStatus.COMPLETED))


def refuse_one(arguments: Arguments) -> None:
    """Refuse an array for a command that is one job: Hydra would run it here, on the login node.

    Raises:
        UserError: it asks for one.
    """
    if arguments.value("hydra/launcher") == array.LAUNCHER:
        raise UserError("is for a multirun", f"hydra/launcher={array.LAUNCHER}", "add -m, or send one job with launch=slurm")


def close(parent: str) -> None:
    """Close the runs of jobs that ended without a word."""
    from mlops_llm.tracking.store import connect

    store = connect()
    for run in ledger.children(store, parent):
        if run.status in queued.OPEN:
            queued.close(store.address, run.id, "KILLED", "its process was killed, or had no memory left (see sacct)")


@contextmanager
def job(stage: Stage, cfg: Any, parent: str) -> Iterator[bool]:
    """What stands while a job runs; whether it went on with its run already, since the cluster has started it before."""
    if not array.is_job():
        yield False
        return
    with array.leaves():
        yield bool(array.restarts()) and _went_on(stage, cfg, parent)


def _went_on(stage: Stage, cfg: Any, parent: str) -> bool:
    """Go on with a job's run; whether there was anything to go on with.

    Of one that had not begun, or of a stage whose runs do not go on, the run is taken back and its files are moved aside.
    """
    from hydra.core.hydra_config import HydraConfig

    from mlops_llm.entry.resume import go_on
    from mlops_llm.tracking.opening import withdraw
    from mlops_llm.tracking.store import connect

    store, name = connect(), job_name(cfg)
    before = next((each for each in ledger.children(store, parent) if each.name == name), None)
    if before is None:
        return False
    if before.status == "FINISHED":
        return True
    queued.close(store.address, before.id, "KILLED", "its process was killed")  # SLURM runs a job once at a time
    if stage.resumes and queued.look(store.address, before.id).begun:
        with console.labelled(name):
            go_on(stage, ledger.find_run(store, before.id), Outcome(), quiet=True)
        return True
    withdraw(before.id)
    output = Path(HydraConfig.get().runtime.output_dir)
    put_aside(before.id, Path.cwd(), output, before.id[:8])
    output.mkdir(exist_ok=True)
    return False
