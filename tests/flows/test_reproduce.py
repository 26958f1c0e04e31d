"""A training is done once more from its record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.registry import rerunning
from mlops_llm.registry.beginning import Beginning
from mlops_llm.registry.reproduction import Drift, drift, inputs, packages, settings, steps, weights
from mlops_llm.registry.rerunning import Again
from mlops_llm.tracking import environment
from mlops_llm.tracking.origin import Origin
from mlops_llm.tracking.store import connect_to, local_path
from tests.commands import SMOKE, ok, train
from tests.record import client, run_of
from tests.surgeries import command

SHORT = ["trainer.max_steps=6", "trainer.save_steps=3", "trainer.eval_steps=3", "trainer.logging_steps=1", "samples.count=0"]
ROWS = [{"prompt": f"第 {number} 个问题？", "response": f"这是第 {number} 个回答。"} for number in range(24)]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder with a training on a file of its own."""
    folder = tmp_path_factory.mktemp("own")
    write(folder, ROWS)
    ok(train(folder, *SMOKE, *SHORT, "dataset=rows.jsonl", "run_name=mine", "register_as=null"))
    return folder


def write(folder: Path, rows: list[dict[str, str]]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def reproduce(folder: Path, *words: str, name: str, code: int = 0) -> dict[str, Any]:
    command(folder, "op=reproduce", "run=mine", *words, f"run_name={name}", code=code, stage="registry")
    found: dict[str, Any] = json.loads((folder / "outputs" / name / "result.json").read_text("utf-8"))
    return found


def artifact(folder: Path, name: str) -> Path:
    place = local_path(run_of(client(folder), "mine").info.artifact_uri)
    assert place
    return place / name


def test_the_same_is_found_to_be_the_same_whatever_package_is_another(own):
    listed = artifact(own, "environment/packages.txt")
    before = listed.read_text("utf-8")
    listed.write_text(before.replace("torch==", "torch==0.1.", 1), "utf-8")
    found = reproduce(own, name="clean")
    listed.write_text(before, "utf-8")
    assert found["verdict"] == "reproduced" and found["steps"] == 6 and found["drift"] is None
    assert found["differences"][0]["kind"] == "package" and found["differences"][0]["what"] == "torch"
    assert found["weights"] == "the same" and run_of(client(own), "clean-again").info.status == "FINISHED"
    assert not (own / "outputs/clean/code").exists()


CHANGED = """diff --git a/src/mlops_llm/train/steps.py b/src/mlops_llm/train/steps.py
--- a/src/mlops_llm/train/steps.py
+++ b/src/mlops_llm/train/steps.py
@@ -1,3 +1,4 @@
+# changed
 \"\"\"What happened at every single step, in a file beside the checkpoints: the proof that a resumed run repeats itself.\"\"\"
 
 from __future__ import annotations
diff --git a/src/sitecustomize.py b/src/sitecustomize.py
new file mode 100644
--- /dev/null
+++ b/src/sitecustomize.py
@@ -0,0 +1,1 @@
+raise SystemExit("这是当时没有提交的改动")
# untracked: notes.bin
"""
"""What was not committed when a training began: a changed file, and a new one with which Python ends at once."""


def test_what_was_not_committed_is_there_again(own):
    if not environment.checkout(Path(rerunning.__file__).parent):
        pytest.skip("the package lies in no checkout")
    patch = artifact(own, "environment/uncommitted.patch")
    before = patch.read_bytes() if patch.is_file() else b""
    patch.write_text(CHANGED, "utf-8")
    try:
        said = command(own, "op=reproduce", "run=mine", "run_name=patched", code=1, stage="registry")
    finally:
        patch.write_bytes(before)
    assert re.search(r"the rerun did not train \(.*这是当时没有提交的改动\)", said)
    assert not (own / "outputs/patched/code").exists()


def test_a_patch_that_does_not_fit_is_a_difference_and_leaves_nothing(tmp_path):
    root = environment.checkout(Path(rerunning.__file__).parent)
    if not root:
        pytest.skip("the package lies in no checkout")
    now = environment.git(root, "rev-parse", "HEAD")
    trees = environment.git(root, "worktree", "list")
    for patch, told in ((CHANGED.replace("What happened", "Who knows"), ["uncommitted changes", "notes.bin"]),
                        (CHANGED, ["notes.bin"]), ("", [])):  # fmt: skip
        with rerunning.code(Again((), tmp_path, now, patch, Beginning({}, ())), tmp_path) as (source, differs):
            assert source == tmp_path / "code/src" and (source / "sitecustomize.py").is_file() == (told == ["notes.bin"])
            is_changed = (source / "mlops_llm/train/steps.py").read_text("utf-8").startswith("# changed")
            assert is_changed == (told == ["notes.bin"])
            assert [each.what for each in differs] == told
        assert not (tmp_path / "code").exists() and environment.git(root, "worktree", "list") == trees
    with rerunning.code(Again((), tmp_path, "0" * 40, "", Beginning({}, ())), tmp_path) as (source, differs):
        assert source == Path(rerunning.__file__).parents[2] and differs[0].what == "the commit"


def test_a_base_is_the_checkpoint_that_its_alias_meant_then(tmp_path):
    store = connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = store.experiment("sales")
    made = store.client.create_logged_model(experiment, "checkpoint-2", tags={
        "checkpoint.storage": "reference", "checkpoint.uri": tmp_path.as_uri()})  # fmt: skip
    store.client.finalize_logged_model(made.model_id, "READY")
    tags = {"base": "models:/sales@champion", "base.checkpoint": made.model_id, "digest.base": "a" * 64}
    run = store.client.create_run(experiment, run_name="sft", tags=tags).info.run_id
    wanted = rerunning.again(store, Origin("sft", {}, tags), "+experiment=x\nmodel=models:/sales@champion\nseed=3\n", run)
    assert wanted.words == ("+experiment=x", "seed=3", f"model=models:/{made.model_id}") and not wanted.beginning.missing
    store.client.set_logged_model_tags(made.model_id, {"checkpoint.files": "removed"})
    gone = rerunning.again(store, Origin("sft", {}, tags), "", run).beginning.missing
    assert [(each.kind, each.what) for each in gone] == [("weights", "models:/sales@champion")]
    of_folder = tags | {"base": "./mine", "base.checkpoint": "", "teacher": "runs:/big/best", "digest.teacher": "b" * 64}
    found = rerunning.again(store, Origin("sft", {}, of_folder), "model=./mine", run)
    assert found.words == ("model=./mine",) and [each.what for each in found.beginning.missing] == ["runs:/big/best"]


def test_a_step_that_is_another_is_named_and_what_may_be_the_reason(own):
    recorded = artifact(own, "steps.jsonl")
    before = recorded.read_text("utf-8")
    rows = [json.loads(line) for line in before.splitlines()]
    rows[1]["loss"] += 0.001
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    client(own).set_tag(run_of(client(own), "mine").info.run_id, "data.validation.digest.canonical", "0" * 64)
    found = reproduce(own, "op.steps=3", name="drifted", code=1)
    recorded.write_text(before, "utf-8")
    assert [each["what"] for each in found["differences"]] == ["validation rows"]
    assert found["verdict"] == "drifted" and (found["drift"]["step"], found["drift"]["what"]) == (2, "loss")
    assert found["steps"] == 3 and run_of(client(own), "drifted-again").info.status in ("KILLED", "FINISHED")


def test_rows_that_are_nowhere_any_more_are_named_and_nothing_is_trained(own):
    write(own, ROWS[:-1])
    found = reproduce(own, name="no-rows", code=1)
    write(own, ROWS)
    assert found["verdict"] == "drifted" and found["differences"][0]["kind"] == "data" and found["steps"] == 0
    assert not (own / "outputs/no-rows/again").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "run: names no training"),
        (["run=mina"], "no run is called 'mina' (did you mean mine?)"),
        (["run=mine", "op.steps=0"], "op.steps: is 0; give a whole number from 1, or null"),
    ],
)
def test_bad_requests_are_one_line(own, words, error):
    said = command(own, "op=reproduce", *words, code=2, stage="registry")
    assert error in said and len(said.splitlines()) == 1


def test_steps_are_compared_in_the_order_in_which_they_are_made():
    lines = "\n".join(json.dumps({"step": n, "batch": f"b{n}", "tokens": n, "lr": 0.1, "loss": 1.0 / n}) for n in (1, 2, 3))
    rows = steps(lines + '\n{"step": 4, "los')
    assert [each["step"] for each in rows] == [1, 2, 3] and drift(rows, rows) is None
    other = [dict(each) for each in rows]
    other[1] |= {"batch": "x", "loss": 9.0}
    assert drift(rows, other) == Drift(2, "batch", "b2", "x")
    assert drift(rows, rows[:2]) == Drift(3, "missing", "there", "not reached") and drift(rows, rows[:2], 2) is None
    assert weights({"checkpoint-3": "a", "checkpoint-6": "b"}, {"checkpoint-3": "a", "checkpoint-6": "c"}).step == 6
    then = {"trainer.learning_rate": "0.002", "run_name": "mine", "seed": "1"}
    (other_setting,) = settings(then, then | {"trainer.learning_rate": "0.001", "run_name": "again"}, {"run_name"})
    assert str(other_setting) == "setting: trainer.learning_rate was 0.002, is 0.001"
    assert [each.kind for each in inputs({"digest.base": "a", "digest.teacher": "t"}, {"digest.base": "b"})] == ["weights"]
    found = packages({"attrs": "1", "torch": "2.9", "old": "1"}, {"attrs": "2", "torch": "2.10", "new": "1"})
    assert [str(each) for each in found][:2] == ["package: torch was 2.9, is 2.10", "package: attrs was 1, is 2"]
