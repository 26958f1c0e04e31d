"""Laws of moving: whatever a record holds goes through an archive unchanged, and a second time changes nothing."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_llm.registry.moving.archive import opened
from mlops_llm.registry.moving.exporting import export
from mlops_llm.registry.moving.importing import enter, foresee
from mlops_llm.tracking.store import Store, connect_to

KEYS = (
    st.text("abzAZ09_-. /:", min_size=1, max_size=12)
    .map(lambda key: f"k{key}k")
    .filter(lambda key: not any(part in ("", ".", "..") for part in key.split("/")))
)
"""What MLflow takes for the name of a number or a setting."""
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324])
TIMES = st.integers(0, 3) | st.integers(0, 2**52)
FILES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


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
    scores: list[tuple[str, float, int, int]] = field(default_factory=list)
    """Of its checkpoint."""


ROWS = st.lists(st.tuples(KEYS | st.just("train/loss"), NUMBERS, TIMES, st.integers(0, 3)), max_size=8)
RUNS = st.lists(
    st.builds(
        Given,
        name=TEXTS.filter(str.strip),
        status=st.sampled_from(["FINISHED", "FAILED", "KILLED"]),
        parent=st.none() | st.integers(0, 2),
        params=st.dictionaries(KEYS, TEXTS, max_size=4),
        tags=st.dictionaries(KEYS, TEXTS, max_size=4),
        metrics=ROWS,
        artifacts=st.dictionaries(FILES, st.binary(max_size=20), max_size=3),
        dataset=TEXTS,
        checkpoint=st.none() | st.dictionaries(st.sampled_from(["config.json", "说明.md", "a b"]), st.binary(max_size=9)),
        scores=ROWS,
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Store, Store]]:
    """Two records, and with each call a project of its own in both."""
    folder = tmp_path_factory.mktemp("stores")
    made = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        made.append(connect_to(f"sqlite:///{folder / name / 'mlflow.db'}"))
    return lambda: (made[0], made[1])


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
            client.finalize_logged_model(model.model_id, "READY")
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
    export(source, ids, folder / name, past=True, registered=True)
    with opened(folder / name, folder) as (copy, contents):
        foresee(target, contents)
        entered = enter(target, copy, contents, move=False)
    return [entered.runs[each] for each in ids]


@settings(max_examples=6)
@given(runs=RUNS)
@example([Given("a", metrics=[("k", math.nan, 1, 1), ("k", math.inf, 1, 1), ("k", 1.0, 1, 1), ("k", 1.0, 1, 2)])])
@example(
    [
        Given(
            "a",
            artifacts={
                "back\\slash": b"",
                "new\nline": b"",
                ".hidden": b"1",
                "-x": b"",
                "manifest.json": b"{}",
                os.fsdecode(b"\xff"): b"",
            },
        )
    ]
)
@example([Given("Ω' \"", tags={"k": "\ud7ff\U0001f600' \" %"}, dataset="'")])
@example([Given("a"), Given("a", parent=0), Given("a", parent=1, checkpoint={}, scores=[("s", 1.0, 1, 1)])])
def test_what_went_in_comes_out_and_a_second_time_changes_nothing(stores, runs):
    source, target = stores()
    with tempfile.TemporaryDirectory() as folder:
        ids = written(source, runs, "any")
        before = seen(source, ids)
        for name in ("once.tar", "twice"):
            there = moved(source, target, ids, Path(folder), name)
            assert seen(target, there) == before
            assert len(set(there)) == len(ids)
        assert moved(target, source, there, Path(folder), "back") == ids
        assert seen(source, ids) == before
