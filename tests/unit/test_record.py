from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from mlops_llm.record import Answer, Checkpoint, DatasetInput, MemoryRun, NullRun, Run
from mlops_llm.tracking.run import LONGEST_TAG, MlflowRun, listed

PROMISED = sorted(name for name in vars(Run) if not name.startswith("_"))
DATA = DatasetInput("sales", "v1", "/sales.jsonl", "training", 3, {"raw": "a", "canonical": "b", "seen": "c"})


def test_the_protocol_is_small():
    writes = ["answers", "artifact", "checkpoint", "child", "figure", "forget", "input", "metrics", "params", "tags", "uses"]
    assert sorted([*writes, "name"]) == PROMISED


@pytest.mark.parametrize("cls", [NullRun, MemoryRun, MlflowRun])
@pytest.mark.parametrize("name", PROMISED)
def test_every_run_keeps_the_promise(cls, name):
    assert inspect.getattr_static(cls, name) is not None
    promised, kept = getattr(Run, name), getattr(cls, name)
    if inspect.isfunction(promised):
        wanted, there = inspect.signature(promised).parameters, inspect.signature(kept).parameters
        assert list(there) == list(wanted)
        assert [each.default for each in there.values()] == [each.default for each in wanted.values()]


def write_all(run: Run) -> Checkpoint:
    checkpoint = Checkpoint("checkpoint-5", 5, Path("/x"), {"bytes": "3"})
    run.params({"a": 1})
    run.params({"b": 2})
    run.tags({"t": "old"})
    run.tags({"t": "new"})
    run.input(DATA)
    run.metrics({"train/loss": 2.0, "lr": 0.1}, 5)
    run.metrics({"eval/loss": 1.0}, 5, checkpoint, "validation")
    run.artifact("a.txt", "text")
    run.artifact("t.json", {"x": [1]})
    run.checkpoint(checkpoint, {"step": 5})
    run.figure("f.png", "figure")
    run.answers([Answer(0, "q", "old"), Answer(1, "q", "a")], checkpoint)
    run.answers([Answer(0, "q", "new")], checkpoint)
    return checkpoint


def test_memory_keeps_everything():
    run = MemoryRun("mine")
    checkpoint = write_all(run)
    assert run.name == "mine"
    assert run.kept_params == {"a": 1, "b": 2}
    assert run.kept_tags == {"t": "new"}
    assert run.inputs == [DATA]
    assert run.kept_metrics == [
        ("train/loss", 2.0, 5, None, None),
        ("lr", 0.1, 5, None, None),
        ("eval/loss", 1.0, 5, "checkpoint-5", "validation"),
    ]
    assert run.artifacts == {"a.txt": "text", "t.json": {"x": [1]}}
    assert run.figures == {"f.png": "figure"}
    assert run.checkpoints == [checkpoint]
    assert [each.text for each in run.kept_answers["checkpoint-5"]] == ["new", "a"]
    assert run.forget(checkpoint)
    assert run.checkpoints == []


def test_two_memories_share_nothing():
    write_all(MemoryRun())
    assert MemoryRun().kept_metrics == []
    assert MemoryRun().kept_params == {}


def test_null_takes_everything_and_keeps_nothing():
    run = NullRun()
    checkpoint = write_all(run)
    assert run.forget(checkpoint)
    assert vars(run) == {}
    assert run.name == "unrecorded"


def test_the_page_is_told_of_as_many_tables_as_its_tag_holds():
    tables = [f"scores/step-{step:05d}.json" for step in range(0, 50_000, 50)]
    few, many = json.loads(listed(tables[:3])), json.loads(listed(tables))
    assert few == [{"path": table, "type": "table"} for table in tables[:3]]
    assert [each["path"] for each in many] == tables[-len(many) :] and len(many) > 50
    assert len(listed(tables)) <= LONGEST_TAG
