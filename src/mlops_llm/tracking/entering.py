"""Runs, checkpoints and registered models of another record, entered into this one under ids of its own.

What is there already is known by the id that it was first made with. A run that is being entered has the tag `UNFINISHED`
until all of it is there: whoever enters it again after a crash goes on with it, and nothing is written twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, datasets, ledger
from mlops_llm.tracking.aliases import register_model
from mlops_llm.tracking.ledger import ORIGIN
from mlops_llm.tracking.portable import PortableCheckpoint, PortableDataset, PortableModel, PortableRun
from mlops_llm.tracking.store import Store, local_path

UNFINISHED = "imported.unfinished"
NAMED = "imported.name"
"""Tag of a run whose name was taken: the name that it had."""
_PARENT = "mlflow.parentRunId"
_OWN = {"checkpoint.storage", "checkpoint.uri", "checkpoint.host", checkpoints.ORIGIN}
_ID = re.compile(r"(?<![0-9a-f])(?:m-)?[0-9a-f]{32}(?![0-9a-f])")


@dataclass
class Entered:
    """What became of what."""

    runs: dict[str, str] = field(default_factory=dict)
    """Id in the archive -> id here."""
    checkpoints: dict[str, str] = field(default_factory=dict)
    new_runs: list[str] = field(default_factory=list)
    new_checkpoints: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    """Name in the archive -> name here."""
    versions: dict[str, str] = field(default_factory=dict)
    """NAME/VERSION in the archive -> NAME/VERSION here."""
    kept_aliases: dict[str, str] = field(default_factory=dict)
    """NAME@ALIAS that points elsewhere here -> where the archive has it."""

    def here(self, text: str) -> str:
        """A text with the ids of this record in the place of those of the archive."""
        known = self.runs | self.checkpoints
        return _ID.sub(lambda found: known.get(found[0], found[0]), text)


def known_run(store: Store, origin: str) -> Any:
    """MLflow's run that was first made with an id, be it here; None where there is none."""
    rows = ledger.tagged(store, {ORIGIN: origin})
    if rows:
        return store.client.get_run(rows[-1].id)
    try:
        found = store.client.get_run(ledger.find_run(store, origin).id)
    except UserError:
        return None
    return found if found.info.lifecycle_stage == "active" else None


def known_checkpoint(store: Store, origin: str) -> Any:
    """MLflow's LoggedModel that was first made with an id; None where there is none."""
    found = checkpoints.by_origin(store, origin)
    try:
        return store.client.get_logged_model(found.id if found else origin)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


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
                raise UserError(what, "op.file", "export without op.datasets, or give the version here another name")
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


def bring_checkpoint(store: Store, told: PortableCheckpoint, files: Path | None, entered: Entered) -> None:
    """Find a checkpoint, or make it with its files; its numbers come with the runs that told them.

    Raises:
        UserError: what the record has of the files afterwards is not what was brought.
    """
    model = known_checkpoint(store, told.origin)
    if model is None:
        model = store.client.create_logged_model(
            store.client.get_run(entered.runs[told.run]).info.experiment_id
            if told.run in entered.runs
            else store.experiment(told.experiment),
            told.name,
            source_run_id=entered.runs.get(told.run),
            tags={checkpoints.ORIGIN: told.origin},
            params={key: entered.here(value) for key, value in told.params.items()},
            model_type=told.kind,
        )
    entered.checkpoints[told.id] = str(model.model_id)
    if str(model.status).endswith("PENDING"):
        entered.new_checkpoints.append(told.id)
        how = (
            _bring(store, model, files)
            if files
            else {key: told.tags[key] for key in _OWN & {*told.tags} - {checkpoints.ORIGIN}}
        )
        if files is None and told.status == "READY" and told.run:
            how["checkpoint.files"] = checkpoints.REMOVED
        store.client.set_logged_model_tags(model.model_id, how)


def finish_checkpoint(store: Store, told: PortableCheckpoint, entered: Entered) -> None:
    """Say of a checkpoint what the archive says, with the ids of this record; then it is whole."""
    if told.id not in entered.new_checkpoints:
        return
    model = entered.checkpoints[told.id]
    tags = {key: entered.here(value) for key, value in told.tags.items() if key not in _OWN and not key.startswith("mlflow.")}
    if tags:
        store.client.set_logged_model_tags(model, tags)
    store.client.finalize_logged_model(model, "READY" if told.status == "READY" else "FAILED")


def _bring(store: Store, model: Any, files: Path) -> dict[str, str]:
    """Put files where MLflow looks for them, and see that they are the same there."""
    from mlops_llm.files import link_files

    place = local_path(model.artifact_location)
    if place is not None:
        for each in (place, *(place.iterdir() if place.is_dir() else ())):
            if each.is_file():
                each.unlink()  # what a killed import left
        linked = link_files(sorted(files.iterdir()), place)
        how = {"checkpoint.storage": "hardlink" if linked else "copy", "checkpoint.uri": place.as_uri()}
    else:
        store.client.log_model_artifacts(model.model_id, str(files))
        how = {"checkpoint.storage": "upload"}
    wanted = {each.name: digest.raw(each) for each in files.iterdir()}
    got = _there(store, str(model.model_id), place)
    if wanted != got:
        differs = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        raise UserError(
            f"the record has other files than were brought: {', '.join(differs[:5])}", model.name, "import it again"
        )
    return how


def _there(store: Store, model: str, place: Path | None) -> dict[str, str]:
    """Name and digest of each file that the record has of a checkpoint, downloaded where it keeps them afar."""
    with TemporaryDirectory() as folder:
        if place is None:
            place = Path(folder)
            checkpoints.download(store, model, place)
        return {each.name: digest.raw(each) for each in place.iterdir() if each.is_file()}


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
    uses = [entered.checkpoints[each] for each in told.uses if each in entered.checkpoints]
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
        ledger.log_inputs(store, run, found)


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

    parent = told.tags.get(_PARENT)
    leave = {"mlflow.runName", ORIGIN, NAMED, UNFINISHED} | ({_PARENT} if parent and parent not in entered.runs else set())
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


def enter_model(store: Store, told: PortableModel, move: bool, entered: Entered) -> None:
    """Register versions; an alias that points elsewhere here is moved only where `move` says so.

    The history of champions comes along where the registered model is new here.
    """
    client = store.client
    is_new = not [
        each for each in client.search_registered_models(f"name = '{told.name}'") if each.tags.get(UNFINISHED) != "true"
    ]
    numbers = dict[int, int]()
    if is_new:
        _named(store, told)
    for each in told.versions:
        if each.checkpoint not in entered.checkpoints:
            continue
        logged = entered.checkpoints[each.checkpoint]
        run = entered.runs.get(each.run, "")
        name = each.tags.get("checkpoint", "")
        numbers[each.number] = int(register_model(store, logged, run, name, told.name, each.description))
        entered.versions[f"{told.name}/{each.number}"] = f"{told.name}/{numbers[each.number]}"
    for each in told.versions:
        if each.number in numbers:
            there = client.get_model_version(told.name, str(numbers[each.number])).tags
            for key, value in each.tags.items():
                if key not in there:
                    client.set_model_version_tag(
                        told.name, str(numbers[each.number]), key, _version_tag(key, value, numbers, entered)
                    )
    aliases = client.get_registered_model(told.name).aliases
    for alias, number in told.aliases.items():
        if number not in numbers or str(aliases.get(alias, "")) == str(numbers[number]):
            continue
        if alias in aliases and not move:
            entered.kept_aliases[f"{told.name}@{alias}"] = f"version {numbers[number]}"
        else:
            client.set_registered_model_alias(told.name, alias, str(numbers[number]))
    if is_new:
        for key, value in told.tags.items():
            if key != "registry.journal" and (text := _history(key, value, numbers, entered)):
                client.set_registered_model_tag(told.name, key, text)
        client.delete_registered_model_tag(told.name, UNFINISHED)


def _named(store: Store, told: PortableModel) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(told.name, {UNFINISHED: "true"}, told.description or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_tag(key: str, value: str, numbers: Mapping[int, int], entered: Entered) -> str:
    if key in ("decision.against", "champion.from") and value.isdecimal():
        return str(numbers.get(int(value), value))
    return entered.here(value)


def _history(key: str, value: str, numbers: Mapping[int, int], entered: Entered) -> str:
    """A registered model's tag; a move of the champion with the numbers of here, empty where its version was not brought."""
    if not key.startswith("registry.history."):
        return entered.here(value)
    move = json.loads(value)
    if move["version"] not in numbers:
        return ""
    renumbered: Callable[[int | None], int | None] = lambda number: None if number is None else numbers.get(number)  # noqa: E731
    move |= {name: renumbered(move[name]) for name in ("version", "before", "previous")}
    return entered.here(json.dumps(move, ensure_ascii=False))


def _free_name(store: Store, name: str) -> str:
    number, found = 1, name
    while ledger.named(store, found):
        number += 1
        found = f"{name}-{number}"
    return found
