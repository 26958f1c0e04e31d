"""Processes that die: by kill -9, by SIGTERM, by Ctrl-C, by a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlops_llm import digest
from tests.commands import SMOKE, ok, start, train, wait_for_step
from tests.faults.conftest import remount
from tests.processes import held_once
from tests.record import checkpoints_of, client, run_of, steps_of

LONG = [
    *SMOKE[:1], "trainer.max_steps=40", "trainer.save_steps=10", "trainer.eval_steps=10", "trainer.logging_steps=4",
    "samples.max_new_tokens=8",
]  # fmt: skip


def final_digest(folder: Path, run: str) -> str:
    return str(json.loads((folder / "outputs" / run / "result.json").read_text())["digest.weights"])


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_resume_after_kill_9_ends_in_the_weights_of_the_uninterrupted_run(tmp_path: Path, peft: str) -> None:
    words = [*LONG, f"peft={peft}", *(["peft.dropout=0.1"] if peft == "lora" else [])]
    ok(train(tmp_path, *words, "run_name=whole", "register_as=null"))
    process = start(tmp_path, *words, "run_name=killed")
    step = random.Random(os.getpid()).randint(12, 37)
    wait_for_step(tmp_path, "killed", step, process)
    process.kill()
    process.communicate()
    assert run_of(client(tmp_path), "killed").info.status == "RUNNING"
    said = ok(train(tmp_path, "resume=killed", fresh=peft == "none"))
    assert "resume verified" in said
    store = client(tmp_path)
    whole, killed = run_of(store, "whole"), run_of(store, "killed")
    assert killed.info.status == "FINISHED" and killed.data.tags["resume.verified"] == "true"
    assert final_digest(tmp_path, "killed") == final_digest(tmp_path, "whole"), f"killed at step {step}"
    tables = [json.loads((tmp_path / f"outputs/{name}/result.json").read_text()) for name in ("whole", "killed")]
    for key in ("eval/loss before", "eval/loss best", "training loss"):
        assert tables[0][key] == tables[1][key], key
    assert (tmp_path / "outputs/killed/steps.jsonl").read_text() == (tmp_path / "outputs/whole/steps.jsonl").read_text()
    for key in ("train/loss", "train/learning_rate", "eval/loss", "train/num_tokens"):
        for run in (whole, killed):
            assert steps_of(store, run, key) == sorted(set(steps_of(store, run, key))), key
        values = [[metric.value for metric in store.get_metric_history(run.info.run_id, key)] for run in (whole, killed)]
        assert values[0] == values[1], key
    mine, theirs = checkpoints_of(store, killed), checkpoints_of(store, whole)
    assert {name: model.tags["digest.weights"] for name, model in mine.items()} == {
        name: model.tags["digest.weights"] for name, model in theirs.items()
    }
    assert all(str(model.status) == "READY" for model in mine.values())
    assert store.get_model_version_by_alias("sales", "challenger").run_id == killed.info.run_id
    store.set_terminated(killed.info.run_id, "KILLED")  # as if it had died after its last step
    ok(train(tmp_path, "resume=killed"))
    assert final_digest(tmp_path, "killed") == final_digest(tmp_path, "whole")
    assert set(checkpoints_of(store, run_of(store, "killed"))) == set(mine)


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.max_steps=-1", "trainer.epochs=2", "trainer.batch_size=8", "trainer.gradient_accumulation_steps=4"],
        ["algo.packing=true", "algo.max_tokens=128", "trainer.batch_size=2", "trainer.max_steps=36"],
    ],
    ids=["epochs and accumulation", "packing"],
)
def test_resume_repeats_however_the_rows_are_fed(tmp_path: Path, words: list[str]) -> None:
    words = [*LONG, *words, "samples.count=0", "register_as=null"]
    ok(train(tmp_path, *words, "run_name=whole"))
    process = start(tmp_path, *words, "run_name=killed")
    wait_for_step(tmp_path, "killed", 23, process)
    process.kill()
    process.communicate()
    assert "resume verified" in ok(train(tmp_path, "resume=killed"))
    assert final_digest(tmp_path, "killed") == final_digest(tmp_path, "whole")
    assert (tmp_path / "outputs/killed/steps.jsonl").read_text() == (tmp_path / "outputs/whole/steps.jsonl").read_text()


def test_resume_from_another_folder_reads_the_files_it_began_with(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder, answer in ((home, "good"), (elsewhere, "other")):
        folder.mkdir()
        rows = [{"prompt": f"question {number}", "response": f"{answer} {number}"} for number in range(40)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    process = start(home, *LONG, "dataset=rows.jsonl", "validation=null", "samples.count=0", "run_name=killed")
    wait_for_step(home, "killed", 13, process)
    process.kill()
    process.communicate()
    record = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"}
    assert "resume verified" in ok(train(elsewhere, "resume=killed", env=record))
    assert run_of(client(home), "killed").info.status == "FINISHED" and not (elsewhere / "outputs").exists()


def test_resume_without_its_folder_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "run_name=killed")
    wait_for_step(tmp_path, "killed", 12, process)
    process.kill()
    process.communicate()
    shutil.rmtree(tmp_path / "outputs/killed")
    done = train(tmp_path, "resume=killed")
    assert done.returncode == 2 and "the folder of run 'killed' is gone" in done.stderr
    assert not (tmp_path / "outputs/killed").exists()


def test_two_resumes_at_once_are_one_too_many(tmp_path: Path) -> None:
    words = [*LONG, "trainer.max_steps=4000", "run_name=killed"]
    process = start(tmp_path, *words)
    wait_for_step(tmp_path, "killed", 11, process)
    process.kill()
    process.communicate()
    first = start(tmp_path, "resume=killed")
    wait_for_step(tmp_path, "killed", 15, first)
    second = train(tmp_path, "resume=killed")
    assert second.returncode == 2 and "still runs here" in second.stderr
    run = run_of(client(tmp_path), "killed")
    client(tmp_path).set_terminated(run.info.run_id, "KILLED")  # as if its word had got lost
    third = train(tmp_path, "resume=killed")
    assert third.returncode == 2 and "is being resumed by another process" in third.stderr
    first.kill()
    first.communicate()


def test_a_resume_that_does_not_repeat_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "run_name=killed")
    wait_for_step(tmp_path, "killed", 16, process)
    process.kill()
    process.communicate()
    steps = tmp_path / "outputs/killed/steps.jsonl"
    lines = [json.loads(line) for line in steps.read_text().splitlines()]
    lines[12]["loss"] += 1e-9
    steps.write_text("".join(json.dumps(line) + "\n" for line in lines))
    process = start(tmp_path, "resume=killed")
    wait_for_step(tmp_path, "killed", 16, process)
    process.kill()
    process.communicate()
    done = train(tmp_path, "resume=killed")  # the second resume repeats the first, which did not repeat the run
    assert "does not repeat the interrupted one: step 13: loss" in done.stderr
    assert run_of(client(tmp_path), "killed").data.tags["resume.verified"] == "false"


def last_step(folder: Path) -> int:
    lines = (folder / "outputs/stopped/steps.jsonl").read_text().splitlines(keepends=True)
    return max(int(json.loads(line)["step"]) for line in lines if line.endswith("\n"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_a_killed_run_and_the_command_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    process = start(tmp_path, *LONG, "trainer.max_steps=4000", "run_name=stopped", fresh=number == signal.SIGTERM)
    wait_for_step(tmp_path, "stopped", 13, process)
    held_once(lambda: last_step(tmp_path) % 10 not in (9, 0), process.send_signal)  # no checkpoint is being written
    last = last_step(tmp_path)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.rstrip().endswith("go on with: python -m mlops_llm.train resume=stopped") and "Traceback" not in err
    store = client(tmp_path)
    run = run_of(store, "stopped")
    assert run.info.status == "KILLED"
    models = checkpoints_of(store, run)
    assert set(models) == {f"checkpoint-{step}" for step in range(10, last, 10)}
    for model in models.values():
        assert str(model.status) == "READY"
        assert digest.weights(tmp_path / "outputs/stopped" / model.name) == model.tags["digest.weights"]


def test_a_dead_run_is_found_at_the_next_start(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "run_name=dead")
    wait_for_step(tmp_path, "dead", 3, process)
    process.kill()
    process.communicate()
    ok(train(tmp_path, *LONG, "trainer.max_steps=1", "run_name=next", "register_as=null"))
    run = run_of(client(tmp_path), "dead")
    assert run.info.status == "KILLED" and "found dead" in run.data.tags["run.error"]


def test_a_checkpoint_that_was_cut_off_is_no_longer_pending_and_is_published_by_a_resume(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "run_name=dead")
    wait_for_step(tmp_path, "dead", 13, process)
    process.kill()
    process.communicate()
    store = client(tmp_path)
    run = run_of(store, "dead")
    # What a death between the two writes of a publication leaves.
    store.create_logged_model(
        run.info.experiment_id, "checkpoint-20", source_run_id=run.info.run_id, model_type="checkpoint", params={"step": "20"}
    )
    ok(train(tmp_path, *LONG, "trainer.max_steps=1", "run_name=next", "register_as=null"))
    assert str(checkpoints_of(store, run)["checkpoint-20"].status) == "FAILED"
    cut = tmp_path / "outputs/dead/checkpoint-15"  # what a death in the middle of its files leaves
    cut.mkdir()
    (cut / "model.safetensors").write_bytes(b"half")
    ok(train(tmp_path, "resume=dead"))
    assert not cut.exists()
    assert {str(model.status) for model in checkpoints_of(store, run).values()} == {"READY"}


def test_a_full_disk_fails_the_run_and_leaves_earlier_checkpoints_whole(tmp_path: Path, small_disk: Path) -> None:
    words = [*LONG, f"output={small_disk / 'out'}", "run_name=full", "trainer.max_steps=100", "trainer.save_steps=10"]
    done = train(tmp_path, *words)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "the disk filled up while checkpoint-" in line and "resume=full" in line
    store = client(tmp_path)
    run = run_of(store, "full")
    assert run.info.status == "FAILED"
    kept = {folder.name: folder for folder in (small_disk / "out").glob("checkpoint-*")}
    ready = {name: model for name, model in checkpoints_of(store, run).items() if str(model.status) == "READY"}
    assert kept and set(kept) == set(ready)
    for name, folder in kept.items():
        assert digest.weights(folder) == ready[name].tags["digest.weights"]
    remount(small_disk, "size=200m")
    ok(train(tmp_path, "resume=full"))
    assert run_of(store, "full").info.status == "FINISHED"


def test_a_full_disk_under_the_record_does_not_stop_the_work_and_nothing_is_lost(tmp_path: Path, small_disk: Path) -> None:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{small_disk / 'mlflow.db'}"}
    words = [*LONG, "samples.count=0", "register_as=null"]
    ok(train(tmp_path, *words, "trainer.max_steps=1", "run_name=before", env=store))
    process = start(tmp_path, *words, "run_name=full", env=store)
    wait_for_step(tmp_path, "full", 6, process)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in err, out + err
    assert "the record cannot be reached" in err and "is delivered by the next start here" in err
    remount(small_disk, "size=200m")
    ok(train(tmp_path, *words, "trainer.max_steps=1", "run_name=next", env=store))
    record = MlflowClient(store["MLFLOW_TRACKING_URI"])
    run = run_of(record, "full")
    assert run.info.status == "FINISHED" and steps_of(record, run, "train/loss") == list(range(4, 41, 4))
    models = checkpoints_of(record, run)
    assert len(models) == 4 and {str(model.status) for model in models.values()} == {"READY"}


_LOST = """
import os, signal, sys, time
from dataclasses import replace
from mlops_llm.data.__main__ import STAGE
from mlops_llm.entry import launch

class Collected:
    def __del__(self):
        os.kill(os.getpid(), signal.{signal})
        time.sleep(0.2)

def work(plan, run):
    Collected()
    for _ in range(100):
        time.sleep(0.1)
    return plan(run)

sys.exit(launch(replace(STAGE, work=work), ["op=stats", "dataset=sales_sft", "run_name=stopped"]))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_arrives_where_nothing_can_be_raised_arrives_again(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "lost.py").write_text(_LOST.replace("{signal}", name), "utf-8")
    process = start(tmp_path, module="lost")
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Exception ignored" not in err, err
    assert run_of(client(tmp_path), "stopped").info.status == "KILLED"
