"""One command, and what MLflow holds afterwards."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag

from mlops_llm import digest
from mlops_llm.data.read import shipped
from mlops_llm.record import Checkpoint
from mlops_llm.tracking import environment, ledger, models, opening, rivals
from mlops_llm.tracking.client import Client
from mlops_llm.tracking.opening import settle
from mlops_llm.tracking.run import Opening
from mlops_llm.tracking.store import connect, connect_to
from tests.record import artifacts_of, checkpoints_of, client, run_of, steps_of


def test_run_is_finished_with_its_settings(trained: Path) -> None:
    run = run_of(client(trained), "first")
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer.max_steps"] == "20" and run.data.params["seed"] == "7"
    assert run.data.tags["stage"] == "train" and run.data.tags["project"] == "sales"
    assert run.data.tags["command"].startswith("python -m mlops_llm.train +experiment=sft_sales trainer.max_steps=20")
    assert {"git.commit", "version.torch", "host.cpu", "run.process", "run.host"} <= set(run.data.tags)


def test_artifacts_are_what_a_person_looks_for(trained: Path) -> None:
    store = client(trained)
    run = run_of(store, "first")
    assert artifacts_of(store, run) >= {
        "config.yaml", "result.json", "samples.json", "steps.jsonl", "train.log", "environment/packages.txt",
        "environment/overrides.txt", "plots/loss.png", "plots/learning_rate.png", "plots/tokens_per_second.png",
    }  # fmt: skip
    place = Path(urlsplit(run.info.artifact_uri).path)
    whole = yaml.safe_load((place / "config.yaml").read_text("utf-8"))
    assert whole["trainer"]["max_steps"] == 20 and whole["dataset"] == "sales_sft"
    table = json.loads((place / "samples.json").read_text("utf-8"))
    assert table["columns"] == ["prompt", "before", "after", "reference"] and len(table["data"]) == 5
    assert (place / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_dataset_inputs_carry_digests_over_every_row(trained: Path) -> None:
    run = run_of(client(trained), "first")
    inputs = {
        next(tag.value for tag in each.tags if tag.key == "mlflow.data.context"): each for each in run.inputs.dataset_inputs
    }
    assert set(inputs) == {"training", "validation"}
    rows = [json.loads(line) for line in (shipped() / "sales_sft.jsonl").read_text("utf-8").splitlines()]
    assert inputs["training"].dataset.digest == digest.canonical(rows)[:32]
    assert run.data.tags["data.train.digest.canonical"] == digest.canonical(rows)
    raw = hashlib.sha256((shipped() / "sales_sft.jsonl").read_bytes()).hexdigest()
    assert run.data.tags["data.train.digest.raw"] == raw
    assert run.data.tags["data.train.rows"] == "500" and len(run.data.tags["data.train.digest.seen"]) == 64


def test_checkpoints_are_hard_links_with_their_numbers(trained: Path) -> None:
    store = client(trained)
    run = run_of(store, "first")
    found = checkpoints_of(store, run)
    assert set(found) == {"checkpoint-10", "checkpoint-20"}
    assert {output.model_id for output in run.outputs.model_outputs} == {model.model_id for model in found.values()}
    for name, model in found.items():
        assert str(model.status) == "READY" and model.model_type == "checkpoint"
        assert model.params["step"] == name.removeprefix("checkpoint-") and model.params["base"] == "tiny"
        published, kept = Path(urlsplit(model.artifact_location).path), trained / "outputs" / "first" / name
        names = {file.name for file in published.iterdir()}
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= names and "optimizer.pt" not in names
        assert all((published / each).stat().st_ino == (kept / each).stat().st_ino for each in names)
        assert model.tags["digest.weights"] == digest.weights(published)
        assert int(model.tags["bytes"]) == sum(file.stat().st_size for file in published.iterdir())
        (loss,) = [metric for metric in model.metrics if metric.key == "eval/loss"]
        assert loss.dataset_name == "sales_sft_val" and loss.step == int(model.params["step"])


def test_metrics_are_written_once_a_step(trained: Path) -> None:
    store = client(trained)
    run = run_of(store, "first")
    assert steps_of(store, run, "train/loss") == [5, 10, 15, 20]
    assert steps_of(store, run, "eval/loss") == [0, 10, 20]
    assert steps_of(store, run, "perf/tokens_per_second") == [5, 10, 15, 20]
    seconds = steps_of(store, run, "system/cpu_utilization_percentage")
    assert (
        seconds
        and seconds[0] >= 2
        and {"system/system_memory_usage_megabytes", "system/disk_usage_percentage"} <= set(run.data.metrics)
    )


def test_best_checkpoint_is_registered_as_challenger(trained: Path) -> None:
    store = client(trained)
    run = run_of(store, "first")
    best = min(
        checkpoints_of(store, run).values(), key=lambda model: next(m.value for m in model.metrics if m.key == "eval/loss")
    )
    version = store.get_model_version("sales", "1")
    assert version.source == f"models:/{best.model_id}" and version.run_id == run.info.run_id
    assert "lowest of 2 checkpoints" in version.description
    assert store.get_registered_model("sales").aliases == {"challenger": 1}


def at_once(count: int, work: Callable[[], None]) -> None:
    """Let threads do something at one moment."""
    together = threading.Barrier(count)

    def begin() -> None:
        together.wait()
        work()

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


Write = Callable[[Client, int, str], None]
"""Writes what a number names, of a run."""


def _writes_an_input(client: Client, number: int, run: str) -> None:
    data = Dataset(f"data{number}", "0", "local", "{}")
    client.log_inputs(run, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


WRITES: dict[str, Write] = {
    "dataset": _writes_an_input,
    "tag": lambda client, number, run: client.set_tag(run, f"key{number}", "value"),
    "project's tag": lambda client, number, run: client.set_experiment_tag("1", f"key{number}", "value"),
    "model's tag": lambda client, number, run: client.set_registered_model_tag("sales", f"key{number}", "value"),
    "version's tag": lambda client, number, run: client.set_model_version_tag("sales", "1", f"key{number}", "value"),
    "alias": lambda client, number, run: client.set_registered_model_alias("sales", f"alias{number}", "1"),
    "prompt's tag": lambda client, number, run: client.set_prompt_tag("asks", f"key{number}", "value"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_several_write_for_the_first_time_at_one_moment_is_there(write: Write, here: Path) -> None:
    client, count, writers = connect_to(f"sqlite:///{here / 'mlflow.db'}").client, 12, 4
    experiment = client.create_experiment("sales", artifact_location=here.as_uri())
    runs = [client.create_run(experiment).info.run_id for _ in range(writers)]
    client.create_registered_model("sales")
    client.create_model_version("sales", here.as_uri(), runs[0])
    client.register_prompt("asks", "what?")
    together, failed = threading.Barrier(writers), list[Exception]()

    def write_all(run: str) -> None:
        for number in range(count):
            together.wait()
            try:
                write(client, number, run if write is _writes_an_input else runs[0])
            except Exception as error:
                failed.append(error)

    waiting = iter(runs)
    at_once(writers, lambda: write_all(next(waiting)))
    assert not failed
    if write is _writes_an_input:
        assert [len(client.get_run(run).inputs.dataset_inputs) for run in runs] == [count] * writers


def test_a_tag_that_is_deleted_while_it_is_set_is_there_or_not_and_no_error(here: Path) -> None:
    client, failed = connect_to(f"sqlite:///{here / 'mlflow.db'}").client, list[Exception]()
    run = client.create_run(client.create_experiment("sales")).info.run_id

    def write(what: Callable[..., Any], *more: str) -> None:
        try:
            what(run, "key", *more)
        except Exception as error:
            failed.append(error)

    for _ in range(24):
        client.set_tag(run, "key", "before")
        works = iter([lambda: write(client.set_tag, "after"), lambda: write(client.delete_tag)])
        at_once(2, lambda works=works: next(works)())  # type: ignore[misc]
    assert not failed


def test_a_run_that_another_command_goes_on_with_is_not_called_dead(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect_to(f"sqlite:///{here / 'mlflow.db'}")
    dead = environment.process_tags() | {"run.process": "1:0"}
    run = store.client.create_run(store.experiment("sales"), tags=dead).info.run_id
    (found,) = ledger.open_here(store, environment.host(), "RUNNING")
    store.client.set_tag(run, "run.process", environment.process_tags()["run.process"])
    with monkeypatch.context() as before:
        before.setattr(ledger, "open_here", lambda store, host, status: [found] if status == "RUNNING" else [])
        settle(store)
    assert store.client.get_run(run).info.status == "RUNNING"
    store.client.set_tag(run, "run.process", "1:0")
    settle(store)
    assert store.client.get_run(run).info.status == "KILLED"


def test_of_runs_that_take_one_name_at_one_moment_one_gets_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'mlflow.db'}")
    monkeypatch.setattr(rivals, "_UNDECIDED", 1.0)
    connect().experiment("sales")
    for number in range(8):
        told, wanted = list[str](), Opening("data", "sales", f"same{number}", here / "out")

        def take(wanted: Opening = wanted, told: list[str] = told) -> None:
            try:
                told.append(opening.schedule(wanted)[0])
            except opening.NameTakenError:
                told.append("")

        at_once(3, take)
        assert [each.id for each in ledger.named(connect(), f"same{number}")] == sorted(filter(None, told)), told


def test_weights_that_several_enter_at_one_moment_are_one_model(here: Path) -> None:
    store = connect_to(f"sqlite:///{here / 'mlflow.db'}")
    experiment, found = store.experiment("sales"), list[str]()
    weights = Checkpoint("base", 0, here, {"digest.weights": "d" * 64})
    at_once(3, lambda: found.append(models.entered(store, experiment, weights)))
    assert models.entered(store, experiment, weights) in found
    begun = store.client.create_logged_model(
        experiment, "cut", tags={"digest.weights": "c" * 64, "checkpoint.storage": "reference"}, model_type="checkpoint"
    )
    again = models.entered(store, experiment, Checkpoint("cut", 0, here, {"digest.weights": "c" * 64}))
    assert again == begun.model_id and str(store.client.get_logged_model(again).status).endswith("READY")
