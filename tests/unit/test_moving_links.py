"""What runs have to do with each other is kept on the way into another record, or what is missing of it is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.errors import UserError
from mlops_llm.registry.moving.archive import opened
from mlops_llm.registry.moving.exporting import Exported, export
from mlops_llm.registry.moving.importing import enter, foresee
from mlops_llm.tracking import datasets
from mlops_llm.tracking.entered import Entered
from mlops_llm.tracking.store import Store, connect_to
from tests.moving import Given, written


def made(folder: Path) -> Store:
    folder.mkdir()
    return connect_to(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return made(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return made(tmp_path / "target")


def versioned(store: Store, folder: Path, rows: str) -> datasets.Version:
    """The version `ours@v1`."""
    file = folder / "rows.jsonl"
    file.write_text("{}\n")
    facts = {"kind": "eval", "description": "", "rows": 1, "raw": rows * 64, "canonical": "b" * 64, "source": rows * 64}
    return datasets.add(store, "ours", "v1", file, facts, [])


@pytest.fixture
def trained(source: Store, tmp_path: Path) -> dict[str, str]:
    """A base, a training of it, and a score of that on a version of a dataset; names of all -> their ids."""
    from mlflow.entities import LoggedModelInput, Metric

    version = versioned(source, tmp_path, "a")
    names = ["base", "tuned", "scored"]
    ids = dict(
        zip(names, written(source, [Given(each, checkpoint={"config.json": b"{}"}) for each in names], "any"), strict=True)
    )
    models = {name: source.client.get_run(run).outputs.model_outputs[0].model_id for name, run in ids.items()}
    for name, before in (("tuned", "base"), ("scored", "tuned")):
        source.client.log_inputs(ids[name], models=[LoggedModelInput(models[before])])
    for key, value in {"base.checkpoint": models["base"], "base.run": ids["base"], "base": f"models:/{models['base']}"}.items():
        source.client.set_tag(ids["tuned"], key, value)
    source.client.log_batch(ids["scored"], [Metric("score/x", 1.0, 5, 0, models["tuned"], "ours", "b" * 32)])
    for key, value in {"name": "ours", "version": "v1", "digest.raw": "a" * 64}.items():
        source.client.set_tag(ids["scored"], f"data.evaluation.{key}", value)
    return ids | {f"model {name}": model for name, model in models.items()} | {"version": version.run}


def moved(source: Store, target: Store, archive: Path, *runs: str, past: bool = True) -> tuple[Exported, Entered]:
    told = export(source, runs, archive, past, versions=True)
    return told, entered(target, archive)


def entered(target: Store, archive: Path) -> Entered:
    with opened(archive, archive.parent) as (copy, contents):
        foresee(target, contents)
        return enter(target, copy, contents, move=False)


def inputs(store: Store, run: str) -> list[str]:
    return [each.model_id for each in store.client.get_run(run).inputs.model_inputs]


def tags(store: Store, run: str) -> Any:
    return store.client.get_run(run).data.tags


def test_what_a_run_rests_on_and_what_measured_it_come_along(source, target, trained, tmp_path):
    told, done = moved(source, target, tmp_path / "all", trained["tuned"])
    assert {*done.runs} == {trained[each] for each in ("base", "tuned", "scored", "version")}
    assert not told.behind and not done.missing
    tuned, base = done.runs[trained["tuned"]], done.checkpoints[trained["model base"]]
    assert inputs(target, tuned) == [base]
    assert tags(target, tuned)["base.checkpoint"] == base and tags(target, tuned)["base"] == f"models:/{base}"
    assert tags(target, tuned)["base.run"] == done.runs[trained["base"]]
    (score,) = target.client.get_logged_model(done.checkpoints[trained["model tuned"]]).metrics
    assert (score.run_id, score.dataset_name, score.value) == (done.runs[trained["scored"]], "ours", 1.0)
    here = datasets.find(target, "ours")
    assert here and here.current and here.current.run == done.runs[trained["version"]]
    assert datasets.snapshot(target, here.current).read_text() == "{}\n"


def test_what_is_left_behind_is_named_and_found_where_it_came_before(source, target, trained, tmp_path):
    told, done = moved(source, target, tmp_path / "tuned", trained["tuned"], past=False)
    assert {*told.behind} == {"base", "scored", "ours@v1"}
    assert done.missing == {
        trained["base"]: "tuned: the run that made its base",
        trained["model base"]: "tuned: its base",
    }
    assert tags(target, done.runs[trained["tuned"]])["base.checkpoint"] == trained["model base"]  # still found once it comes
    other = made(tmp_path / "other")
    _, first = moved(source, other, tmp_path / "base", trained["base"], past=False)
    after = entered(other, tmp_path / "tuned")
    assert not after.missing
    tuned, base = after.runs[trained["tuned"]], first.checkpoints[trained["model base"]]
    assert inputs(other, tuned) == [base] and tags(other, tuned)["base.checkpoint"] == base
    assert tags(other, tuned)["base.run"] == first.runs[trained["base"]]


def test_a_job_finds_its_parent_which_came_before_and_one_without_is_alone(source, target, tmp_path):
    parent, job = written(source, [Given("sweep"), Given("job", parent=0)], "any")
    _, first = moved(source, target, tmp_path / "parent", parent)
    assert {*first.runs} == {parent, job}  # its jobs come along
    alone = made(tmp_path / "alone")
    _, done = moved(source, alone, tmp_path / "job", job, past=False)
    assert done.missing == {parent: "job: its parent"}
    assert "mlflow.parentRunId" not in tags(alone, done.runs[job])
    target.client.delete_run(first.runs[job])
    again = entered(target, tmp_path / "job")
    assert tags(target, again.runs[job])["mlflow.parentRunId"] == first.runs[parent]


def test_what_was_deleted_here_comes_back_whole(source, target, trained, tmp_path):
    _, first = moved(source, target, tmp_path / "base", trained["base"])
    target.client.delete_run(first.runs[trained["base"]])
    for _ in range(2):
        again = entered(target, tmp_path / "base")
        run, model = again.runs[trained["base"]], again.checkpoints[trained["model base"]]
        assert run != first.runs[trained["base"]]
        assert target.client.get_logged_model(model).source_run_id == run
        assert [each.model_id for each in target.client.get_run(run).outputs.model_outputs] == [model]
    assert not again.new_runs and not again.new_checkpoints


def test_a_project_that_was_deleted_here_is_told_before_anything_is_written(source, target, trained, tmp_path):
    target.client.delete_experiment(target.experiment("any"))
    export(source, [trained["tuned"]], tmp_path / "all", past=True, versions=True)
    with pytest.raises(UserError, match=re.escape("the experiment 'any' was deleted in MLflow")):
        entered(target, tmp_path / "all")
    assert [each.name for each in target.client.search_experiments()] == ["Default"]


def test_a_version_of_the_same_rows_is_the_one_that_is_here_and_one_of_others_is_refused(source, target, trained, tmp_path):
    mine = versioned(target, tmp_path, "a")
    _, done = moved(source, target, tmp_path / "all", trained["tuned"])
    assert done.runs[trained["version"]] == mine.run
    other = made(tmp_path / "other")
    theirs = versioned(other, tmp_path, "c")
    with pytest.raises(UserError, match="the dataset 'ours' has a version 'v1' of other rows here"):
        entered(other, tmp_path / "all")
    everything = [each.experiment_id for each in other.client.search_experiments()]
    assert [each.info.run_id for each in other.client.search_runs(everything)] == [theirs.run]
