"""Batches without a record: what is there is told by the recipes in folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlops_llm.models import digested, load
from mlops_llm.models.ref import resolve
from mlops_llm.record import MemoryRun, NullRun, Result
from mlops_llm.surgery.batch.running import Batch, carried_out, prepared
from mlops_llm.surgery.config import Surgery
from tests.families import miniature

JOBS = """
jobs:
  short: {op: prune_depth, model: small, op.layers: [1], output: short}
  shorter: {op: prune_depth, model: "jobs:/short", op.layers: [0], output: shorter}
"""


@pytest.fixture
def small(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random model and a file of jobs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    miniature("llama", here / "small", layers=3, tokenizer=load.tokenizer(resolve("tiny")))
    (here / "jobs.yaml").write_text(JOBS)
    return here


def batch(name: str = "b") -> Batch:
    found = prepared("jobs.yaml", Surgery(op=None, folder=name, run_name=name))
    assert not isinstance(found, Result)
    return found


def test_jobs_hand_their_folders_on_and_are_known_again_by_recipe(small: Path) -> None:
    first = carried_out(batch(), NullRun())
    assert first.values["made"] == {"short": str(small / "short"), "shorter": str(small / "shorter")}
    assert json.loads((small / "shorter/config.json").read_text())["num_hidden_layers"] == 1
    again = batch("c")
    assert {name: one.state.name for name, one in again.ended.items()} == {"short": "there", "shorter": "there"}
    assert "2 were there already" in carried_out(again, NullRun()).table["jobs"]

    file = small / "shorter/model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    digested._folder_digest.cache_clear()
    with pytest.raises(Exception, match="shorter: exists already"):  # its weights are no longer what the recipe says
        batch("d")

    # Another setting is another job, and its folder is taken.
    (small / "jobs.yaml").write_text(JOBS.replace("op.layers: [0]", "op.layers: [1]"))
    with pytest.raises(Exception, match="exists already"):
        batch("d")


def test_what_a_job_raises_ends_only_what_needs_it(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_llm.surgery.pruning import writing

    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "written", full)
    run = MemoryRun("b")
    result = carried_out(batch(), run)
    assert result.failed and result.values == {"succeeded": 0, "failed": 1, "skipped": 1, "made": {}}
    assert (
        "the disk filled up" in run.artifacts["jobs.json"]["reason"][0]
        and "needs short" in run.artifacts["jobs.json"]["reason"][1]
    )
    assert not (small / "short").exists() and list(run.children) == ["short"]
