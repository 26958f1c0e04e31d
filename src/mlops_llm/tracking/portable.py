"""What a run, a checkpoint and a registered model are, apart from the record that holds them: plain values that JSON keeps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm.tracking import checkpoints, datasets, ledger, registered
from mlops_llm.tracking.deliver import inference_files
from mlops_llm.tracking.lineage import ancestors
from mlops_llm.tracking.store import Store, local_path

RUN_ID, MODEL_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"m-[0-9a-f]{32}")


@dataclass(frozen=True)
class PortableRun:
    """A run."""

    id: str
    origin: str
    """The id that it was made with; another than `id` where it was imported."""
    name: str
    experiment: str
    """Name of its experiment."""
    status: str
    start: int
    """Milliseconds since 1970."""
    end: int | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[list[Any]]
    """[key, value, time in ms, step], every one that was ever told, sorted."""
    inputs: list[dict[str, Any]]
    """Datasets: name, digest, source_type, source, schema, profile, tags."""
    uses: list[str]
    """Ids of checkpoints that it reads."""
    makes: list[list[Any]]
    """[id of a checkpoint, step]."""


@dataclass(frozen=True)
class PortableCheckpoint:
    """A checkpoint."""

    id: str
    origin: str
    name: str
    kind: str
    """MLflow's `model_type`."""
    status: str
    run: str
    """Id of the run that made it; empty of weights from elsewhere."""
    experiment: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[list[Any]]
    """[key, value, time in ms, step, id of the run that told it, dataset or null, its digest or null], sorted."""


@dataclass(frozen=True)
class PortableVersion:
    """A version of a registered model."""

    number: int
    checkpoint: str
    run: str
    description: str
    tags: dict[str, str]


@dataclass(frozen=True)
class PortableModel:
    """A registered model with those versions that are taken along."""

    name: str
    description: str
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: tuple[PortableVersion, ...]


@dataclass(frozen=True)
class PortableDataset:
    """What the experiment of a dataset says of all its versions."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)


def wanted_runs(store: Store, first: Sequence[str], past: bool) -> list[str]:
    """Ids of runs, the older first: those named, their jobs, and with `past` all that lineage and numbers of them rest on.

    Args:
        store: the record.
        first: ids.
        past: also runs that made what their models were made of or measured their checkpoints, and dataset versions they read.
    """
    found, followed = dict[str, Any](), set[str]()
    waiting = [(each, past) for each in first]
    while waiting:
        run, rests = waiting.pop()
        if run in found and (not rests or run in followed):
            continue
        found[run] = made = store.client.get_run(run)
        followed |= {run} if rests else set()
        waiting += [(each.id, rests) for each in ledger.children(store, run)]
        if rests:
            waiting += [(each, True) for each in _behind(store, made)]
            for each in _measuring(store, made):
                waiting.append((each, False))  # what else they measured is no matter of this one
                waiting += [(one, True) for one in _dataset_versions(store, store.client.get_run(each).data.tags)]
    return sorted(found, key=lambda each: (found[each].info.start_time, each))


def _behind(store: Store, run: Any) -> Iterator[str]:
    """Runs that a run rests on."""
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent:
        yield parent
    outputs = [each.model_id for each in run.outputs.model_outputs] if run.outputs else []
    inputs = [each.model_id for each in run.inputs.model_inputs] if run.inputs else []
    models = set(inputs) | {run.data.tags.get("base.checkpoint", "")} - {""}
    for model in {each for start in (*outputs[:1], *models) for each in ancestors(store, start)}:
        row = registered.by_ids(store, [model]).get(model)
        if row and row.run:
            yield row.run
    yield from _dataset_versions(store, run.data.tags)


def _measuring(store: Store, run: Any) -> Iterator[str]:
    """Runs that told numbers of a run's checkpoints."""
    for each in run.outputs.model_outputs if run.outputs else ():
        yield from {metric[4] for metric in checkpoint(store, each.model_id).metrics if metric[4]}


def _dataset_versions(store: Store, tags: dict[str, str]) -> Iterator[str]:
    for part in ("data.train", "data.validation", "data.evaluation", "data"):
        name, raw = tags.get(f"{part}.name"), tags.get(f"{part}.digest.raw")
        known = datasets.find(store, name) if name and raw else None
        yield from [each.run for each in known.versions if each.raw == raw] if known else []


def run(store: Store, run: str) -> PortableRun:
    """Read a run."""
    made = store.client.get_run(run)
    info, data = made.info, made.data
    histories = [[metric.key, metric.value, metric.timestamp, metric.step]
                 for key in data.metrics for metric in ledger.history(store, run, key)]  # fmt: skip
    return PortableRun(
        run,
        data.tags.get(ledger.ORIGIN, run),
        info.run_name,
        store.client.get_experiment(info.experiment_id).name,
        info.status,
        int(info.start_time),
        int(info.end_time) if info.end_time else None,
        dict(data.params),
        dict(data.tags),
        sorted(histories),
        [_input(each) for each in made.inputs.dataset_inputs] if made.inputs else [],
        [each.model_id for each in made.inputs.model_inputs] if made.inputs else [],
        [[each.model_id, each.step] for each in made.outputs.model_outputs] if made.outputs else [],
    )


def _input(each: Any) -> dict[str, Any]:
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    tags = {tag.key: tag.value for tag in each.tags}
    return {**{name: getattr(each.dataset, name) for name in names}, "tags": tags}


def checkpoint(store: Store, model: str) -> PortableCheckpoint:
    """Read a checkpoint."""
    found = store.client.get_logged_model(model)
    told = [[each.key, each.value, each.timestamp, each.step, each.run_id or "", each.dataset_name, each.dataset_digest]
            for each in found.metrics or []]  # fmt: skip
    return PortableCheckpoint(
        model,
        found.tags.get(checkpoints.ORIGIN, model),
        found.name,
        found.model_type or "",
        str(found.status).rsplit(".", 1)[-1],
        found.source_run_id or "",
        store.client.get_experiment(found.experiment_id).name,
        dict(found.params),
        dict(found.tags),
        sorted(told, key=lambda each: [str(part) for part in each]),
    )


def models(store: Store, known: set[str]) -> list[PortableModel]:
    """Registered models with those versions that are made of certain checkpoints."""
    found = []
    for each in registered.models(store):
        rows = [row for row in registered.versions(store, each.name) if row.checkpoint and row.checkpoint.id in known]
        numbers = {row.version for row in rows}
        if rows:
            versions = tuple(
                PortableVersion(row.version, row.checkpoint.id, row.run, row.description, dict(row.tags))
                for row in sorted(rows, key=lambda row: row.version)
                if row.checkpoint
            )
            told = store.client.get_registered_model(each.name).description or ""
            aliases = {alias: number for alias, number in each.aliases.items() if number in numbers}
            found.append(PortableModel(each.name, told, dict(each.tags), aliases, versions))
    return found


def dataset(store: Store, experiment: str) -> PortableDataset:
    """What is said of a dataset."""
    tags = store.client.get_experiment_by_name(experiment).tags
    return PortableDataset(experiment, {key: value for key, value in tags.items() if key.startswith("dataset.")})


def artifacts_into(store: Store, run: str, folder: Path) -> None:
    """Bring a copy of a run's artifacts into a folder."""
    place = local_path(store.client.get_run(run).info.artifact_uri)
    if place is None:
        if store.client.list_artifacts(run):
            folder.mkdir(parents=True)
            store.client.download_artifacts(run, "", str(folder))
        return
    if place.is_dir() and any(place.iterdir()):
        shutil.copytree(place, folder)


def files_into(store: Store, row: checkpoints.CheckpointRow, folder: Path) -> bool:
    """Bring a copy of a checkpoint's files into a folder; False where it has none, since they were removed or lie elsewhere.

    Raises:
        UserError: they are gone.
    """
    is_elsewhere = not row.run and row.tags.get("checkpoint.storage") == "reference"
    if row.status != "READY" or row.tags.get("checkpoint.files") == checkpoints.REMOVED or is_elsewhere:
        return False
    folder.mkdir(parents=True)
    for each in inference_files(checkpoints.place_of(store, row)):
        shutil.copy2(each, folder / each.name)
    return True
