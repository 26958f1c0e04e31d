"""Runs of another record, entered into this one under ids of its own.

What is there already is known by the id that it was first made with. A run that is being entered has the tag `UNFINISHED`
until all of it is there: whoever enters it again after a crash goes on with it, and nothing is written twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.tracking import datasets, ledger
from mlops_llm.tracking.entered import PARENT, Entered, known_run
from mlops_llm.tracking.ledger import ORIGIN
from mlops_llm.tracking.portable import PortableDataset, PortableRun
from mlops_llm.tracking.store import Store

UNFINISHED = "imported.unfinished"
NAMED = "imported.name"
"""Tag of a run whose name was taken: the name that it had."""


def same_version(store: Store, told: PortableRun) -> str:
    """Id of the run that holds the same dataset version here; empty where there is none.

    Raises:
        UserError: the label stands for other rows here.
    """
    tags = told.tags
    name = told.experiment.removeprefix(datasets.PREFIX)
    known = datasets.find(store, name) if name != told.experiment else None
    for each in known.versions if known else ():
        if each.label == tags.get("dataset.label"):
            if each.raw != tags.get("digest.raw"):
                what = f"the dataset '{known.name if known else ''}' has a version '{each.label}' of other rows here"
                raise UserError(what, "op.file", "export with op.past=false, or import into another record")
            return each.run
    return ""


def begin(store: Store, told: PortableRun, entered: Entered) -> None:
    """Find a run, or make it; it is complete only after `complete`."""
    found = known_run(store, told.origin)
    there = found.info.run_id if found is not None else same_version(store, told)
    if not there:
        name = _free_name(store, told.name)
        tags = {ORIGIN: told.origin, UNFINISHED: "true"} | ({NAMED: told.name} if name != told.name else {})
        experiment = store.experiment(told.experiment)
        made = store.client.create_run(experiment, start_time=told.start, run_name=name, tags=tags)
        there = str(made.info.run_id)
        found = made
    if found is not None and UNFINISHED in found.data.tags:
        entered.new_runs.append(told.id)
        if found.info.run_name != told.name:
            entered.renamed[told.name] = found.info.run_name
    entered.runs[told.id] = there


def complete(
    store: Store, told: PortableRun, numbers: Mapping[str, list[list[Any]]], artifacts: Path | None, entered: Entered
) -> None:
    """Write all of a run; what is written already is left.

    Args:
        store: the record.
        told: the run.
        numbers: checkpoint's id in the archive -> its numbers, see `PortableCheckpoint.metrics`.
        artifacts: folder of its artifacts.
        entered: what was entered so far.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput, Param

    client, run = store.client, entered.runs[told.id]
    if told.id not in entered.new_runs:
        return
    there = client.get_run(run)
    params = [Param(key, entered.here(value)) for key, value in told.params.items() if key not in there.data.params]
    for start in range(0, len(params), 100):
        client.log_batch(run, params=params[start : start + 100])
    inputs = {each.model_id for each in there.inputs.model_inputs} if there.inputs else set()
    known = entered.elsewhere | entered.checkpoints
    uses = [known[each] for each in told.uses if each in known]
    if missing := [LoggedModelInput(each) for each in uses if each not in inputs]:
        client.log_inputs(run, models=missing)
    outputs = {each.model_id for each in there.outputs.model_outputs} if there.outputs else set()
    makes = [(entered.checkpoints[each], step) for each, step in told.makes if each in entered.checkpoints]
    if absent := [LoggedModelOutput(each, step) for each, step in makes if each not in outputs]:
        client.log_outputs(run, absent)
    _inputs(store, run, told)
    _numbers(store, run, told, numbers, entered)
    if artifacts is not None:
        client.log_artifacts(run, str(artifacts))
    _close(store, run, told, entered)


def _inputs(store: Store, run: str, told: PortableRun) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = []
    for each in told.inputs:
        data = Dataset(each["name"], each["digest"], each["source_type"], each["source"], each["schema"], each["profile"])
        found.append(DatasetInput(data, [InputTag(key, value) for key, value in each["tags"].items()]))
    if found:
        store.client.log_inputs(run, datasets=found)


def _numbers(store: Store, run: str, told: PortableRun, numbers: Mapping[str, list[list[Any]]], entered: Entered) -> None:
    """Write the numbers that a run told: first those of checkpoints, which are written on both, then the rest."""
    from mlflow.entities import Metric

    of_models = [
        (model, row) for model, rows in numbers.items() if model in entered.checkpoints for row in rows if row[4] == told.id
    ]
    had = {model: _told(store, entered.checkpoints[model], run) for model in {model for model, _ in of_models}}
    batch = [
        Metric(key, value, time, step, entered.checkpoints[model], name, data, run_id=run)
        for model, (key, value, time, step, _, name, data) in of_models
        if (key, time, step) not in had[model]
    ]
    both = Counter((key, time, step, value) for _, (key, value, time, step, *_) in of_models)
    there = {key: {(each.timestamp, each.step, each.value) for each in ledger.history(store, run, key)}
             for key in {row[0] for row in told.metrics}}  # fmt: skip
    batch += [
        Metric(key, value, time, step, run_id=run)
        for key, value, time, step in told.metrics
        if (key, time, step, value) not in both and (time, step, value) not in there[key]
    ]
    for start in range(0, len(batch), 1000):
        store.client.log_batch(run, metrics=batch[start : start + 1000])


def _told(store: Store, model: str, run: str) -> set[tuple[str, int, int]]:
    metrics = store.client.get_logged_model(model).metrics or []
    return {(each.key, each.timestamp, each.step) for each in metrics if each.run_id == run}


def _close(store: Store, run: str, told: PortableRun, entered: Entered) -> None:
    """Tags, then the status; last of all the mark goes."""
    from mlflow.entities import RunTag

    leave = {"mlflow.runName", ORIGIN, NAMED, UNFINISHED}
    if told.tags.get(PARENT) not in entered.elsewhere | entered.runs:
        leave.add(PARENT)
    # By its process's tags a start on that machine would take it for a run that died.
    process = {"run.host", "run.process", "run.heartbeat"}
    tags = [RunTag(key, entered.here(value)) for key, value in told.tags.items() if key not in leave]
    first, later = [each for each in tags if each.key not in process], [each for each in tags if each.key in process]
    for start in range(0, len(first), 100):
        store.client.log_batch(run, tags=first[start : start + 100])
    store.client.set_terminated(run, told.status, end_time=told.end)
    store.client.log_batch(run, tags=later)
    store.client.delete_tag(run, UNFINISHED)


def tell_dataset(store: Store, told: PortableDataset, entered: Entered) -> None:
    """Say what a dataset is, and which version is current, as far as this record does not say it itself."""
    here = store.client.get_experiment_by_name(told.name)
    for key, value in told.tags.items():
        if here is not None and key not in here.tags:
            store.client.set_experiment_tag(here.experiment_id, key, entered.here(value))


def _free_name(store: Store, name: str) -> str:
    number, found = 1, name
    while ledger.named(store, found):
        number += 1
        found = f"{name}-{number}"
    return found
