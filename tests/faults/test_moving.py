"""Exports and imports that are killed, point after point: nothing half is left, and the next one completes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from mlops_llm import digest
from mlops_llm.registry.moving.archive import opened
from mlops_llm.tracking.store import connect_to
from tests.commands import start
from tests.moving import Given, seen, written

WEIGHTS = {"model.safetensors": save({"w": np.arange(6, dtype=np.float32)}), "config.json": b"{}"}
JOB = Given(
    "job",
    parent=0,
    metrics=[("loss", float(n), n, n) for n in range(5)],
    artifacts={"a": b"1", "b": b"2"},
    dataset="rows",
    params={"lr": "1"},
    tags={"k": "v"},
    checkpoint=WEIGHTS,
    scores=[("score", 1.0, 1, 1)],
    registered="m",
)
RUNS = [Given("sweep", metrics=[("best", 0.5, 9, 0)], artifacts={"note.txt": b"n", "empty": b""}), JOB]
ENTERING, CLIENT = "mlops_llm.tracking.entering", "mlflow.tracking.client:MlflowClient"
IMPORTING = [
    "mlops_llm.registry.moving.unpacking:_put+",
    f"{ENTERING}:begin+",
    "mlops_llm.files:link_file+",
    f"{CLIENT}.log_outputs+",
    f"{CLIENT}.log_artifacts+",
    f"{CLIENT}.finalize_logged_model",
    f"{CLIENT}.create_model_version+",
    f"{CLIENT}.set_registered_model_alias",
]
"""In the order in which an import comes by; `+`: it dies when that is done."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[Any]]:
    """A folder with a record, the ids of its runs, and what it says of them."""
    folder = tmp_path_factory.mktemp("source")
    store = connect_to(f"sqlite:///{folder / 'mlflow.db'}")
    ids = written(store, RUNS, "any")
    return folder, ids, seen(store, ids)


def command(folder: Path, *words: str, dies: list[str] | None = None) -> str:
    """Run a registry command, before that once for each point at which it dies; return what it said."""
    if dies is None:
        process = start(folder, *words, stage="registry")
    else:
        process = start(folder, "each", " ".join([__name__, *dies]), "registry", *words, module="tests.dying")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out


def check() -> None:
    """See that nothing in the current folder's record says of itself that it is whole and is not."""
    if not Path("mlflow.db").exists():
        return
    client = connect_to(f"sqlite:///{Path('mlflow.db').absolute()}").client
    experiments = [each.experiment_id for each in client.search_experiments()]
    for model in client.search_logged_models(experiments):
        if str(model.status).endswith("READY"):
            place = Path(model.artifact_location.removeprefix("file://"))
            assert digest.weights(place) == model.tags["digest.weights"]
            assert client.get_run(model.source_run_id).info.status == "FINISHED"
    for run in client.search_runs(experiments, "tags.`imported.run` LIKE '%'"):
        if "imported.unfinished" not in run.data.tags:
            assert run.info.status == "FINISHED" and run.data.metrics
    for each in client.search_registered_models():
        for version in each.aliases.values():
            source = client.get_model_version(each.name, version).source
            assert str(client.get_logged_model(source.removeprefix("models:/")).status).endswith("READY")


def record(folder: Path, origins: list[str]) -> list[Any]:
    """What a folder's record says of runs that were imported."""
    store = connect_to(f"sqlite:///{folder / 'mlflow.db'}")
    found = [store.client.search_runs([store.experiment("any")], f"tags.`imported.run` = '{each}'") for each in origins]
    assert [len(each) for each in found] == [1] * len(origins)
    return seen(store, [run.info.run_id for (run,) in found])


def test_an_import_that_is_killed_again_and_again_is_completed_by_the_next(source, tmp_path):
    folder, ids, before = source
    archive, there = tmp_path / "all.tar", tmp_path / "there"
    there.mkdir()
    command(folder, "op=export_runs", f"op.runs=[{ids[0]}]", f"op.file={archive}")
    command(there, "op=import_runs", f"op.file={archive}", dies=IMPORTING)
    assert record(there, ids) == before
    client = connect_to(f"sqlite:///{there / 'mlflow.db'}").client
    assert [int(each.version) for each in client.search_model_versions("name = 'm'")] == [1]
    named = client.get_registered_model("m")
    assert {alias: int(version) for alias, version in named.aliases.items()} == {"champion": 1} and not named.tags
    assert not list((there / "outputs").glob(".import.*"))
    experiments = [each.experiment_id for each in client.search_experiments()]
    assert not client.search_runs(experiments, "attributes.status = 'RUNNING'")
    assert "0 new, 2 were there" in command(there, "op=import_runs", f"op.file={archive}")


def test_imports_of_the_same_runs_at_one_moment_take_turns_and_the_first_enters_them(source, tmp_path):
    folder, ids, before = source
    there = tmp_path / "there"
    there.mkdir()
    connect_to(f"sqlite:///{there / 'mlflow.db'}")
    archives = [tmp_path / "all.tar", tmp_path / "all"]
    for each in archives:
        command(folder, "op=export_runs", f"op.runs=[{ids[0]}]", f"op.file={each}")
    began = [start(there, "op=import_runs", f"op.file={archives[n % 2]}", stage="registry") for n in range(4)]
    ended = [(*each.communicate(timeout=300), each.returncode) for each in began]
    assert [code for *_, code in ended] == [0] * 4, ended
    assert sorted(next(n for n in (0, 1, 2) if f"{n} new, {2 - n} were there" in out) for out, *_ in ended) == [0, 0, 0, 2]
    assert record(there, ids) == before


@pytest.mark.parametrize(("name", "last"), [("all.tar", "tarfile:TarFile.add+"), ("all", "pathlib:Path.rename")])
def test_an_export_that_is_killed_leaves_no_archive_and_nothing_beside_the_next_one(source, tmp_path, name, last):
    folder, ids, _ = source
    out = tmp_path / "kept" / name
    points = ["mlops_llm.registry.moving.exporting:seal+", last]
    command(folder, "op=export_runs", f"op.runs=[{ids[0]}]", f"op.file={out}", dies=points)
    assert [each.name for each in out.parent.iterdir()] == [name]
    with opened(out, tmp_path) as (_, contents):
        assert contents.weights and {each.id for each in contents.runs} == set(ids)
