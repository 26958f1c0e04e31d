from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlops_llm.tracking import environment, run
from mlops_llm.tracking.environment import UNTRACKED_BYTES, describe
from mlops_llm.tracking.ledger import RunRow

ARGV = ["python", "-m", "mlops_llm.train", "dataset=数据.jsonl"]
PASSWORD = "correct-" + "horse-battery"


@pytest.fixture
def checkout(here: Path) -> Path:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    git("init", "--quiet")
    (here / "kept.py").write_text("one = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    return here


def test_a_clean_checkout_has_a_commit_and_no_patch(checkout):
    state = describe(ARGV)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert state.tags["git.commit"] == state.tags["mlflow.source.git.commit"] == head
    assert state.tags["git.uncommitted"] == "false" and state.patch == ""
    assert state.tags["command"] == "python -m mlops_llm.train 'dataset=数据.jsonl'"
    assert f"mlflow=={state.tags['version.mlflow']}\n" in state.packages


def test_the_patch_restores_what_was_not_committed(checkout):
    (checkout / "kept.py").write_text("one = 2\n")
    (checkout / "new.py").write_text("fresh = True\n")
    (checkout / "数据.py").write_text("also = True\n")
    (checkout / "huge.bin").write_bytes(b"0" * (UNTRACKED_BYTES + 1))
    patch = describe(ARGV).patch
    assert "# untracked: huge.bin" in patch
    subprocess.run(["git", "checkout", "--quiet", "."], check=True)
    for name in ("new.py", "huge.bin", "数据.py"):
        (checkout / name).unlink()
    subprocess.run(["git", "apply"], input=patch.replace("# untracked: huge.bin\n", ""), text=True, check=True)
    assert (checkout / "kept.py").read_text() == "one = 2\n" and (checkout / "new.py").read_text() == "fresh = True\n"
    assert (checkout / "数据.py").read_text() == "also = True\n"


@pytest.mark.parametrize(
    "line",
    [
        f"export OPENAI_API_KEY={PASSWORD}",
        f"headers = {{'Authorization': 'Bearer {PASSWORD}'}}",
        f"password: {PASSWORD}",
        f"url = 'postgresql://me:{PASSWORD}@host/db'",
        "-----BEGIN RSA " + f"PRIVATE KEY-----\n{PASSWORD}\n-----END RSA PRIVATE KEY-----",
        "token = '" + "hf_" + "a" * 30 + "'  # " + "correct",
    ],
)
def test_no_credential_of_a_changed_or_new_file_is_in_the_patch(checkout, line):
    (checkout / "kept.py").write_text(f"{line}\n")
    (checkout / "new.sh").write_text(f"{line}\n")
    patch = describe(ARGV).patch
    assert patch.count("***") >= 2
    assert PASSWORD not in patch and "hf_" + "a" * 30 not in patch


def test_a_long_patch_is_cut_with_a_mark(checkout, monkeypatch):
    monkeypatch.setattr(environment, "PATCH_BYTES", 300)
    (checkout / "kept.py").write_text("".join(f"line {number}\n" for number in range(200)))
    patch = describe(ARGV).patch
    assert patch.endswith("# cut here: the patch is over 1 MiB\n") and len(patch) < 400


def test_a_process_lives_until_it_ends():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tag = environment.process(child.pid)
        assert environment.lives(tag)
        pid, _, started = tag.partition(":")
        assert environment.lives(f"{pid}:{float(started) + 1.0:.2f}"), "a clock that was set"
        assert not environment.lives(f"{pid}:{float(started) + 60:.2f}"), "an id that is used again"
    assert not environment.lives(tag)
    assert not environment.lives("") and not environment.lives("x:y")


def row(**tags: str) -> RunRow:
    return RunRow("1", "a", "1", "default", "RUNNING", {key.replace("_", "."): value for key, value in tags.items()}, {}, {})


def test_a_run_here_is_looked_up_and_one_elsewhere_is_believed_by_its_heartbeat():
    here, now = environment.host(), time.time()
    assert run.lives(row(run_host=here, run_process=environment.process(os.getpid()), run_heartbeat="0"))
    assert not run.lives(row(run_host=here, run_process="1:0.0", run_heartbeat=str(now)))
    for elsewhere in ("other/1/2", here.rpartition("/")[0] + "/7", f"{here.partition('/')[0]}/rebooted/1"):
        assert run.lives(row(run_host=elsewhere, run_process="1:0.0", run_heartbeat=str(now - 60)))
        assert not run.lives(row(run_host=elsewhere, run_process="1:0.0", run_heartbeat=str(now - run.SILENCE - 1)))
    assert not run.lives(row())


def test_the_tags_of_a_process_say_that_it_lives():
    tags = environment.process_tags()
    assert psutil.Process(int(tags["run.process"].partition(":")[0])).is_running()
    assert abs(float(tags["run.heartbeat"]) - time.time()) < 5


def test_long_settings_are_cut_with_a_mark():
    assert run._cut("x" * run.LONGEST_PARAM) == "x" * run.LONGEST_PARAM
    cut = run._cut("y" * (run.LONGEST_PARAM + 1))
    assert len(cut) == run.LONGEST_PARAM and cut.endswith("… (cut; whole in config.yaml)")


def test_telemetry_is_off_unless_the_user_turns_it_on():
    code = "import mlops_llm.tracking.store, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    for given, wanted in ((None, "true"), ("false", "false")):
        env = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
        env |= {} if given is None else {"MLFLOW_DISABLE_TELEMETRY": given}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted
