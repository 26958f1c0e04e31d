"""Records as any program may have left them, what they say, and their way into another one."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlops_llm import digest
from mlops_llm.registry.moving.archive import opened
from mlops_llm.registry.moving.exporting import export
from mlops_llm.registry.moving.importing import enter, foresee
from mlops_llm.tracking.aliases import register
from mlops_llm.tracking.store import Store


@dataclass(frozen=True)
class Given:
    """A run, as somebody's program may have left it."""

    name: str
    status: str = "FINISHED"
    parent: int | None = None
    """Which of the runs before it."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    """Key, value, time, step."""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    dataset: str = ""
    checkpoint: dict[str, bytes] | None = None
    """Its files."""
    registered: str = ""
    """Name of the registered model whose next version it is, which the alias `champion` points to."""
    scores: list[tuple[str, float, int, int]] = field(default_factory=list)
    """Of its checkpoint."""


def written(store: Store, runs: list[Given], project: str) -> list[str]:
    """Write runs into a record with MLflow's own client; return their ids."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag

    client, experiment, ids = store.client, store.experiment(project), list[str]()
    for number, each in enumerate(runs):
        tags = dict(each.tags)
        if each.parent is not None and each.parent < number:
            tags["mlflow.parentRunId"] = ids[each.parent]
        run = client.create_run(experiment, start_time=1000 + number, run_name=each.name).info.run_id
        client.log_batch(
            run,
            [Metric(key, value, time, step) for key, value, time, step in each.metrics],
            [Param(key, value) for key, value in each.params.items()],
            [RunTag(key, value) for key, value in tags.items()],
        )
        if each.dataset:
            data = Dataset(each.dataset[:36], "d" * 8, "local", json.dumps({"uri": each.dataset}), each.dataset, each.dataset)
            client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        with tempfile.TemporaryDirectory() as folder:
            for name, content in each.artifacts.items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(run, folder)
        if each.checkpoint is not None:
            model = client.create_logged_model(experiment, "checkpoint-1", run, {"run": run}, {"step": "1"}, "checkpoint")
            place = Path(model.artifact_location.removeprefix("file://"))
            place.mkdir(parents=True, exist_ok=True)
            for name, content in each.checkpoint.items():
                (place / name).write_bytes(content)
            client.log_outputs(run, [LoggedModelOutput(model.model_id, 1)])
            told = {(key, time, step): value for key, value, time, step in each.scores if math.isfinite(value)}
            client.log_batch(run, [Metric(*key[:1], value, *key[1:], model_id=model.model_id) for key, value in told.items()])
            if "model.safetensors" in each.checkpoint:
                client.set_logged_model_tags(model.model_id, {"digest.weights": digest.weights(place)})
            client.finalize_logged_model(model.model_id, "READY")
            if each.registered:
                with mock.patch.dict(os.environ, MLFLOW_TRACKING_URI=store.address):  # its registry asks there
                    register(store, run, "checkpoint-1", each.registered, "champion", "")
        client.set_terminated(run, each.status, end_time=5000 + number)
        ids.append(str(run))
    return ids


def seen(store: Store, ids: list[str]) -> list[Any]:
    """What a record says of runs, the ids of each by its number."""
    client, told = store.client, list[Any]()
    known = {each: f"run {number}" for number, each in enumerate(ids)}
    own = ("mlflow.runName", "imported.", "checkpoint.", "mlflow.user", "mlflow.source")
    for each in ids:
        run = client.get_run(each)
        models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{each}'")
        assert {one.model_id for one in models} == {one.model_id for one in (run.outputs.model_outputs if run.outputs else ())}
        place = Path(url2pathname(urlsplit(run.info.artifact_uri).path))  # MLflow itself finds no file with a line break
        files = {str(one.relative_to(place)): one.read_bytes() for one in place.rglob("*") if one.is_file()}
        told.append(
            [
                (run.info.status, run.info.start_time, run.info.end_time),
                dict(run.data.params),
                {key: known.get(text, text) for key, text in run.data.tags.items() if not key.startswith(own)},
                {key: rows(client.get_metric_history(each, key)) for key in run.data.metrics},
                [(one.dataset.to_dictionary(), [*map(str, one.tags)]) for one in run.inputs.dataset_inputs],
                files,
                [
                    (
                        one.name,
                        str(one.status),
                        dict(one.params),
                        {key: known.get(text, text) for key, text in one.tags.items() if not key.startswith(own)},
                        rows(one.metrics or []),
                        {
                            file.name: file.read_bytes()
                            for file in Path(one.artifact_location.removeprefix("file://")).glob("*")
                        },
                    )
                    for one in models
                ],
            ]
        )
    return told


def rows(metrics: list[Any]) -> list[tuple[str, str, int, int]]:
    return sorted((each.key, repr(each.value), each.timestamp, each.step) for each in metrics)


def moved(source: Store, target: Store, ids: list[str], folder: Path, name: str) -> list[str]:
    """Export and import runs; return their ids in the other record."""
    export(source, ids, folder / name, past=True, versions=True)
    with opened(folder / name, folder) as (copy, contents):
        foresee(target, contents)
        entered = enter(target, copy, contents, move=False)
    return [entered.runs[each] for each in ids]
