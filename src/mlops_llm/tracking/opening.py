"""How a run begins and ends in MLflow: created, adopted or resumed, its process watched, closed as what it was."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.tracking import champions, clock, environment, ledger, system
from mlops_llm.tracking.deliver import deliver
from mlops_llm.tracking.outbox import deliver_left_over
from mlops_llm.tracking.rivals import rivals
from mlops_llm.tracking.run import MlflowRun, Opening
from mlops_llm.tracking.secrets import mask
from mlops_llm.tracking.store import Store, connect, is_away

_HEARTBEAT = 30.0
JOB = "queue.job"
"""Tag of a run that a queue or another machine has: which job it is there."""
SAYS_NO = "result.failed"
"""Tag of a run whose work was done and said no."""
PIPELINE_BEST = "pipeline.best"
"""Tag of a pipeline: the model that won."""
_FOUND = ("best.score", "best.metric", "best.higher", PIPELINE_BEST)
PARENT = "MLOPS_LLM_PARENT_RUN"
"""Variable by which the jobs of a multirun, in whatever process, find their parent."""


class NameTakenError(UserError):
    """Another run has the name."""

    def __init__(self, name: str, other: ledger.RunRow) -> None:
        """Say who has it, and the ways out."""
        goes_on = "" if other.status == "FINISHED" else f", or go on with it: resume={name}"
        super().__init__(f"'{name}' is taken by {other.status.lower()} run {other.id}", "run_name", f"choose another{goes_on}")
        self.name = name


@contextmanager
def open_run(opening: Opening) -> Iterator[MlflowRun]:
    """Open a run, mark it by how the block ends, and close it.

    A block that ends by `KeyboardInterrupt` (Ctrl-C, SIGTERM) leaves KILLED, by any other exception FAILED.

    Raises:
        UserError: the tracking server does not answer, or the name is taken.
    """
    store = connect()
    settle(store)
    experiment, run = _resumed(store, opening) if opening.resume else _created(store, opening)
    opened = MlflowRun(store, run, experiment, opening)
    stop = threading.Event()
    # A run that waited in a queue is older than its work.
    began = store.client.get_run(run).info.start_time / 1000 if opening.resume else time.time()
    machine = threading.Thread(target=system.watch, args=(opened, began, stop), daemon=True)
    for thread in (threading.Thread(target=_beat, args=(store, run, stop), daemon=True), machine):
        thread.start()
    status = "FAILED"
    try:
        _describe(opened, opening)
        if not opening.parent:
            champions.complete(store, run)
        yield opened
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        opened.tags({"run.error": mask(str(error))[:1000] or type(error).__name__})
        raise
    finally:
        stop.set()
        machine.join(timeout=5.0)
        opened.finish(status)


def schedule(opening: Opening) -> tuple[str, str]:
    """Create a run that waits, in the status SCHEDULED, for the process that will adopt it; return its id and its page.

    Raises:
        UserError: the tracking server does not answer, or the name is taken.
    """
    store = connect()
    _refuse_taken(opening.name, ledger.named(store, opening.name))
    command = environment.argv_of(opening.stage, list(opening.overrides))
    experiment, run = _new(store, opening, _tags(opening) | {"command": " ".join(shlex.quote(word) for word in command)})
    store.client.update_run(run, status="SCHEDULED")
    return run, store.link(experiment, run)


def withdraw(run: str) -> None:
    """Take back a run that waits."""
    connect().client.delete_run(run)


def settle(store: Store) -> None:
    """Bring the record up to date: what dead processes left is delivered, and their runs no longer count as running.

    A run that waits, and whose creator died before anybody had the command, is taken away.
    """
    deliver_left_over(store)
    # Each is asked twice: another command may have found it too, and go on with it by now.
    for run in ledger.open_here(store, environment.host(), "SCHEDULED"):
        if _never_began(run) and _never_began(ledger.find_run(store, run.id)):
            store.client.delete_run(run.id)
    for run in ledger.open_here(store, environment.host(), "RUNNING"):
        if _is_dead(run) and _is_dead(ledger.find_run(store, run.id)):
            store.client.set_tag(run.id, "run.error", "its process ended without a word; found dead at a later start")
            deliver(store, run.id, {"do": "finish", "status": "KILLED", "time": int(time.time() * 1000)}, again=True)


def _never_began(run: ledger.RunRow) -> bool:
    waits = run.status == "SCHEDULED" and JOB not in run.tags and not run.params
    return waits and not environment.believed_alive(run.tags)


def _is_dead(run: ledger.RunRow) -> bool:
    return run.status == "RUNNING" and not environment.believed_alive(run.tags)


def recorded_text(store: Store, run: str, name: str) -> str:
    """Read a text artifact of a run.

    Raises:
        UserError: the run has no such artifact.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        try:
            return Path(store.client.download_artifacts(run, name, folder)).read_text("utf-8")
        except Exception as error:
            raise UserError(f"run {run} has no readable {name}", remedy="start a new run") from error


def _created(store: Store, opening: Opening) -> tuple[str, str]:
    """Create the run, or adopt the one that `mlflow run` or a queue opened; its name is unique in the whole store."""
    tags = _tags(opening) | environment.process_tags()
    adopted = "" if opening.parent else os.environ.get("MLFLOW_RUN_ID", "")
    _refuse_taken(opening.name, [run for run in ledger.named(store, opening.name) if run.id != adopted])
    if adopted:
        had = _check_adopted(store, adopted)
        _forget_end(store, adopted, had.tags)
        for key, value in tags.items():
            store.client.set_tag(adopted, key, value)
        store.client.update_run(adopted, status="RUNNING", name=opening.name)
        experiment = str(store.client.get_run(adopted).info.experiment_id)
        lies = store.client.get_experiment(experiment).name
        if lies != opening.project:
            remedy = f"mlflow run … --experiment-name {opening.project}"
            console.warn(f"this run lies in the experiment '{lies}', where it was opened, not in '{opening.project}': {remedy}")
        return experiment, adopted
    return _new(store, opening, tags)


def _tags(opening: Opening) -> dict[str, str]:
    parent = {"mlflow.parentRunId": opening.parent} if opening.parent else {}
    return {
        "stage": opening.stage,
        "project": opening.project,
        "output": str(opening.output.absolute()),
        "folder": str(Path.cwd()),
        **parent,
        **opening.tags,
    }


def _new(store: Store, opening: Opening, tags: dict[str, str]) -> tuple[str, str]:
    experiment = store.experiment(opening.project)
    run = store.client.create_run(experiment, run_name=opening.name, tags=tags).info.run_id
    taken = rivals(lambda: ledger.named(store, opening.name), lambda each: each.id == run)
    if taken:
        store.client.delete_run(run)
        _refuse_taken(opening.name, taken)
    return experiment, str(run)


def _check_adopted(store: Store, run: str) -> ledger.RunRow:
    remedy = "unset it; only `mlflow run` and a queue's worker set it rightly"
    try:
        row = ledger.find_run(store, run)
    except UserError as error:
        raise UserError(error.what, "MLFLOW_RUN_ID", remedy) from error
    if row.status == "FINISHED":
        raise UserError(f"run '{row.name}' is finished", "MLFLOW_RUN_ID", remedy)
    return row


def _resumed(store: Store, opening: Opening) -> tuple[str, str]:
    run = store.client.get_run(opening.resume)
    for key, value in environment.process_tags().items():
        store.client.set_tag(opening.resume, key, value)
    store.client.update_run(opening.resume, status="RUNNING")
    _forget_end(store, opening.resume, run.data.tags)
    return str(run.info.experiment_id), opening.resume


def _forget_end(store: Store, run: str, tags: Mapping[str, str]) -> None:
    """Strike how an earlier process ended, and what it found best: the run has yet to end."""
    for tag in {"run.error", SAYS_NO, *_FOUND} & set(tags):
        store.client.delete_tag(run, tag)


def _refuse_taken(name: str, others: list[ledger.RunRow]) -> None:
    if others:
        raise NameTakenError(name, others[0])


def _describe(run: MlflowRun, opening: Opening) -> None:
    command = environment.argv_of(opening.stage, list(opening.overrides))
    state = environment.describe(command)
    if opening.resume:
        # The state that the run began from stays; what is another now stands beside it.
        before = connect().client.get_run(run.id).data.tags
        ignored = ("command", "mlflow.source.name", "mlflow.source.type", "mlflow.user")
        other = {key: value for key, value in state.tags.items() if key not in ignored and before.get(key) != value}
        if other:
            console.warn(f"code, packages or machine changed since the run began: {', '.join(sorted(other))}")
        run.tags({"resumed": "true", **{f"resume.{key}": value for key, value in other.items()}})
        return
    run.params(opening.config)
    run.tags(state.tags | ({"seed": str(opening.seed)} if opening.seed is not None else {}))
    if opening.config_yaml:
        run.artifact("config.yaml", opening.config_yaml)
    run.artifact("environment/packages.txt", state.packages)
    run.artifact("environment/overrides.txt", "\n".join(opening.overrides) + "\n")
    for name, patch in state.patches.items():
        run.artifact(f"environment/{name}.patch", patch)


def _beat(store: Store, run: str, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        try:
            if store.reachable():
                store.client.set_tag(run, "run.heartbeat", str(int(clock.now())))
        except Exception as error:
            if not is_away(error):
                raise
