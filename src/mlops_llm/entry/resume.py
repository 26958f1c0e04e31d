"""`resume=`: going on in the same run, with its recorded settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from omegaconf import DictConfig

from mlops_llm import console
from mlops_llm.entry import config
from mlops_llm.entry.arguments import Arguments, as_typed
from mlops_llm.entry.job import Outcome, Stage, finish
from mlops_llm.entry.multirun import conclude_again
from mlops_llm.errors import UserError
from mlops_llm.files import writable
from mlops_llm.launch import sent
from mlops_llm.launch.place import JOB
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.opening import open_run, recorded_text, settle
from mlops_llm.tracking.run import Opening
from mlops_llm.tracking.store import Store, connect


def resume(stage: Stage, ref: str, arguments: Arguments, outcome: Outcome) -> int:
    """Go on with a run from its last whole checkpoint.

    Raises:
        UserError: the run is unknown, finished, a multirun's parent or of another stage, still runs, or other settings were
            given: a resumed run has the settings it began with.
    """
    run = checked(stage, ref, arguments)
    parent = go_on(stage, run, outcome)
    if parent:
        conclude_again(connect(), parent)
    return int(outcome.failed)


def go_on(stage: Stage, run: RunRow, outcome: Outcome, quiet: bool = False) -> str:
    """Go on with a run from its last whole checkpoint; return the id of the multirun whose job it is.

    Raises:
        UserError: another process does so, or what it needs is not there any more.
    """
    from filelock import FileLock, Timeout

    store = connect()
    cfg = _recorded(stage, run, store)
    settings = config.typed(cfg)
    settings.resume, settings.run_name = run.id, run.name
    output = Path(run.tags["output"])
    if stage.folder:
        setattr(settings, stage.folder, str(output))
    lock = FileLock(writable(output) / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"run '{run.name}' is being resumed by another process", "resume", "wait for it") from error
    _refuse_finished(stage, ledger.find_run(store, run.id))  # that process may have ended since this command looked
    with _where_it_began(run, store):
        plan = stage.prepare(settings)
    opening = Opening(
        stage=stage.name,
        project=run.project,
        name=run.name,
        output=output,
        seed=settings.seed,
        storage=settings.checkpoints.storage.name if "checkpoints" in cfg else "auto",
        resume=run.id,
        parent=_multirun(run, store),
    )
    with open_run(opening) as opened:
        outcome.begin(run.name)
        console.say(f"going on with {run.name} ({run.id})")
        outcome.failed = finish(stage, plan, opened, opening, quiet).failed
    lock.release()
    return opening.parent


@contextmanager
def as_begun(stage: Stage, run: RunRow, store: Store) -> Iterator[DictConfig]:
    """A run's recorded settings, with what relative paths in them mean within the block.

    Raises:
        UserError: the record does not have them.
    """
    with _where_it_began(run, store):
        yield _recorded(stage, run, store)


def _recorded(stage: Stage, run: RunRow, store: Store) -> DictConfig:
    choices = {key.removeprefix("choice."): value for key, value in run.params.items() if key.startswith("choice.")}
    return config.from_record(stage.schema, choices, recorded_text(store, run.id, "config.yaml"))


def _multirun(run: RunRow, store: Store) -> str:
    """Id of the multirun whose job a run is; one that is a stage of a pipeline is registered and closed as any other."""
    parent = run.tags.get("mlflow.parentRunId", "")
    return parent if parent and ledger.find_run(store, parent).tags.get("kind") == "multirun" else ""


def checked(stage: Stage, ref: str, arguments: Arguments, here: bool = True) -> RunRow:
    """The run that a command wants to go on with.

    Args:
        stage: whose command it is.
        ref: the run's name or id.
        arguments: as they were typed.
        here: the run's folder has to be on this machine.

    Raises:
        UserError: it cannot, for one of the reasons of `resume`.
    """
    others = [item for item in arguments.overrides if not item.startswith(("resume=", "hydra."))]
    if others or arguments.multirun:
        raise UserError(
            "a resumed run goes on with the settings it began with",
            "resume",
            f"leave out: {' '.join(map(as_typed, others)) or '-m'}",
        )
    store = connect()
    settle(store)
    run = ledger.find_run(store, ref)
    _check(stage, run)
    _check_no_job_has_it(run)
    output = run.tags["output"]
    if here and not Path(output).is_dir():
        raise UserError(
            f"the folder of run '{run.name}' is gone, and what it kept with it",
            f"{run.tags.get('run.host', '').partition('/')[0]}:{output}",
            "bring it back, or start a new run (a training from runs:/… where the record has a copy)",
        )
    return run


def _check_no_job_has_it(run: RunRow) -> None:
    """A job that waits, or whose end nobody has looked at yet, would go on with the run as well."""
    away = sent.find(run.id)
    if JOB in os.environ or away is None or away.state.ended:
        return
    ask = f"python -m mlops_llm.launch op=attend op.job={run.name}   (or op=cancel)"
    raise UserError(f"the job of run '{run.name}' ({away.place}) may still go on with it", "resume", f"see to it first: {ask}")


@contextmanager
def _where_it_began(run: RunRow, store: Store) -> Iterator[None]:
    """The folder in which the run was started, in which its relative paths mean what they meant then."""
    folder = Path(run.tags.get("folder", "."))
    if not folder.is_dir():
        yield  # another machine
        return
    os.environ["MLFLOW_TRACKING_URI"] = store.address
    with chdir(folder):
        yield


def _refuse_finished(stage: Stage, run: RunRow) -> None:
    if run.status == "FINISHED":
        raise UserError(f"run '{run.name}' is finished", "resume", stage.instead.replace("{run}", run.name))


def _check(stage: Stage, run: RunRow) -> None:
    if run.tags.get("stage") != stage.name:
        raise UserError(f"run '{run.name}' is of stage '{run.tags.get('stage', '?')}', not '{stage.name}'", "resume")
    if run.tags.get("kind") == "multirun":
        raise UserError(
            f"'{run.name}' is the parent of a multirun", "resume", "resume one of its jobs, e.g. " + run.name + "-0"
        )
    _refuse_finished(stage, run)
    if run.status == "RUNNING" and environment.believed_alive(run.tags):
        place = "here" if run.tags.get("run.host") == environment.host() else f"on {run.tags.get('run.host')}"
        raise UserError(
            f"run '{run.name}' still runs {place} (process {run.tags.get('run.process')})", "resume", "stop it first"
        )
