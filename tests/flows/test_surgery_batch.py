"""Batches of operations by real commands: what fails stays alone, and what is there is not done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.entry import launch
from mlops_llm.models import load
from mlops_llm.models.ref import resolve
from mlops_llm.surgery.__main__ import STAGE
from tests.commands import start, wait_for
from tests.families import miniature
from tests.record import client, run_of

JOBS = """
jobs:
  narrow: {op: prune_ffn, model: small, op.ratio: 0.1, op.samples: 4, output: narrow}
  wrong: {op: prune_heads, model: "jobs:/narrow", op.ratio: 0.9, op.samples: 4}
  after_wrong: {op: prune_depth, model: "jobs:/wrong", op.layers: [1]}
"""


@pytest.fixture
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random model, a file of jobs, and a record of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    miniature("llama", here / "small", layers=3, tokenizer=load.tokenizer(resolve("tiny")))
    (here / "jobs.yaml").write_text(JOBS)
    return here


def batch(here: Path, name: str, *words: str, code: int = 0, capfd: pytest.CaptureFixture[str]) -> Any:
    """The result of a batch, or with `code` 2 its error."""
    capfd.readouterr()
    got = launch(STAGE, ["op=batch", "op.file=jobs.yaml", f"run_name={name}", *words])
    out, err = capfd.readouterr()
    assert got == code and "Traceback" not in err, out + err
    if code == 2:
        return err
    return json.loads((here / f"outputs/{name}/result.json").read_text()) | {"out": out}


def state_of(store: Any, name: str) -> tuple[str, str]:
    run = run_of(store, name)
    return run.info.status, run.data.tags.get("mlflow.parentRunId", "")


def test_failures_stay_alone_and_a_rerun_does_what_is_missing(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = batch(small, "first", code=1, capfd=capfd)
    assert (first["succeeded"], first["failed"], first["skipped"]) == (1, 1, 1)
    assert "succeeded 1, failed 1, skipped 1" in first["out"] and "needs wrong, which failed" in first["out"]
    store = client(small)
    parent = run_of(store, "first").info.run_id
    assert state_of(store, "first-narrow") == ("FINISHED", parent)
    assert state_of(store, "first-wrong") == ("FAILED", parent)
    assert "largest that works" in run_of(store, "first-wrong").data.tags["run.error"]
    assert not store.search_runs([run_of(store, "first").info.experiment_id], "attributes.run_name = 'first-after_wrong'")

    (small / "jobs.yaml").write_text(JOBS.replace("0.9", "0.08"))
    second = batch(small, "second", capfd=capfd)
    assert second["succeeded"] == 3 and "1 were there already" in second["out"]
    assert second["made"]["narrow"] == "runs:/first-narrow/pruned" and second["made"]["wrong"] == "runs:/second-wrong/pruned"

    shutil.rmtree(small / "narrow")
    made = batch(small, "third", capfd=capfd)["made"]
    assert made["narrow"] == "runs:/third-narrow/pruned"
    assert made["after_wrong"] == "runs:/second-after_wrong/pruned"  # the same weights came out, so what follows is there


def test_the_whole_file_is_checked_before_anything_begins(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for text, said in (
        (JOBS.replace("op.ratio: 0.9", "op.ratoi: 0.9"), "jobs.yaml:4: job wrong, op.ratoi: 'prune_heads' has no such setting"),
        (JOBS.replace("model: small", "model: nowhere/else"), "jobs.yaml:3: job narrow, nowhere/else: "),
        (
            JOBS.replace("op.layers: [1]", "op.layers: [1], output: narrow"),
            "job after_wrong, output: job narrow writes there too",
        ),
        (JOBS + "  more: {op: batch, op.file: jobs.yaml}", "is a batch within a batch"),
        (JOBS + "  more: {op: prune_ffn, model: small, op.dry_run: true}", "job more, op.dry_run: is for the whole batch"),
    ):
        (small / "jobs.yaml").write_text(text)
        assert said in batch(small, "refused", code=2, capfd=capfd)
    (small / "jobs.yaml").write_text(JOBS)
    assert "model: is a setting of one operation" in batch(small, "refused", "model=small", code=2, capfd=capfd)
    assert launch(STAGE, ["op=batch", "op.file=jobs.yaml", "op.dry_run=true"]) == 0
    assert "to do" in capfd.readouterr().out
    assert not (small / "outputs").exists() and not (small / "narrow").exists()


@pytest.mark.slow
def test_a_batch_that_was_killed_goes_on_where_it_was(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (small / "jobs.yaml").write_text("\n".join(JOBS.replace("0.9", "0.08").splitlines()[:4]))
    process = start(small, "op=batch", "op.file=jobs.yaml", "run_name=killed", stage="surgery")
    wait_for((small / "narrow/recipe.json").is_file, process)
    process.kill()
    process.communicate()
    written = (small / "narrow/model.safetensors").stat().st_mtime_ns
    found = batch(small, "again", capfd=capfd)
    assert found["succeeded"] == 2 and (small / "narrow/model.safetensors").stat().st_mtime_ns == written
    assert not list(small.glob(".narrow.*"))
    assert resolve(found["made"]["narrow"]).folder.is_dir() and resolve(found["made"]["wrong"]).folder.is_dir()
    assert run_of(client(small), "killed").info.status == "KILLED"


@pytest.mark.slow
def test_a_batch_teaches_what_it_pruned(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The training is a command of its own, whose run the job points to."""
    (small / "jobs.yaml").write_text(
        "\n".join(JOBS.splitlines()[:3])
        + """
  healed:
    op: distill
    models: [small, "jobs:/narrow"]
    dataset: sales_sft
    op.settings: {trainer.max_steps: 2, trainer.eval_steps: 2, trainer.save_steps: 2, samples.count: 0}
"""
    )
    made = batch(small, "taught", capfd=capfd)["made"]
    assert made["healed"] == "runs:/taught-healed-training/checkpoint-2"
    store = client(small)
    training = run_of(store, "taught-healed-training")
    assert training.data.params["algo.teacher"] == "small" and training.data.params["model"] == made["narrow"]
    assert run_of(store, "taught-healed").data.tags["training.run"] == training.info.run_id
    assert "distill/student_loss" in run_of(store, "taught-healed").data.metrics
