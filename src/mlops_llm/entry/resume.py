"""`resume=`: going on in the same run, with its recorded settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.entry.arguments import Arguments
from mlops_llm.errors import UserError


def resume(stage: Any, ref: str, arguments: Arguments, begin: Callable[[str], None]) -> int:
    """Go on with a run from its last whole checkpoint.

    Raises:
        UserError: the run is unknown, finished, a multirun's parent or of another stage, still runs, or other settings were
            given: a resumed run has the settings it began with.
    """
    from mlops_llm.entry import config
    from mlops_llm.entry.launch import finish
    from mlops_llm.tracking import environment, ledger
    from mlops_llm.tracking.run import Opening, open_run, recorded_text, settle
    from mlops_llm.tracking.store import connect

    others = [item for item in arguments.overrides if not item.startswith(("resume=", "hydra."))]
    if others or arguments.multirun:
        raise UserError(
            "a resumed run goes on with the settings it began with", "resume", f"leave out: {' '.join(others) or '-m'}"
        )
    store = connect()
    settle(store)
    run = ledger.find_run(store, ref)
    _check(stage, run, environment.host(), store)
    choices = {key.removeprefix("choice."): value for key, value in run.params.items() if key.startswith("choice.")}
    cfg = config.from_record(stage.schema, choices, recorded_text(store, run.id, "config.yaml"))
    settings = config.typed(cfg)
    settings.resume, settings.run_name, settings.output = run.id, run.name, run.tags["output"]
    plan = stage.prepare(settings)
    opening = Opening(
        stage=stage.name,
        project=run.project,
        name=run.name,
        output=Path(settings.output),
        seed=settings.seed,
        storage=settings.checkpoints.storage.name,
        resume=run.id,
        parent=run.tags.get("mlflow.parentRunId", ""),
    )
    with open_run(opening) as opened:
        begin(run.name)
        console.say(f"going on with {run.name} ({run.id})")
        finish(stage, plan, opened, opening)
    return 0


def _check(stage: Any, run: Any, host: str, store: Any) -> None:
    if run.tags.get("stage") != stage.name:
        raise UserError(f"run '{run.name}' is of stage '{run.tags.get('stage', '?')}', not '{stage.name}'", "resume")
    if run.tags.get("kind") == "multirun":
        raise UserError(
            f"'{run.name}' is the parent of a multirun", "resume", "resume one of its jobs, e.g. " + run.name + "-0"
        )
    if run.status == "FINISHED":
        raise UserError(
            f"run '{run.name}' is finished", "resume", f"to train further, start from it: model=runs:/{run.name}/last"
        )
    if run.status == "RUNNING" and run.tags.get("run.host") == host:
        raise UserError(f"run '{run.name}' still runs (process {run.tags.get('run.process')})", "resume", "stop it first")
