from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlops_llm.tracking import clock, environment, run
from mlops_llm.tracking.environment import UNTRACKED_BYTES, describe

ARGV = ["python", "-m", "mlops_llm.train", "dataset=数据.jsonl"]
PASSWORD = "correct-" + "horse-battery"


@pytest.fixture
def checkout(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    git("init", "--quiet")
    (here / "kept.py").write_text("one = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(here / "kept.py"))
    return here


def test_a_clean_checkout_has_a_commit_and_no_patch(checkout):
    state = describe(ARGV)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert state.tags["git.commit"] == state.tags["mlflow.source.git.commit"] == head
    assert state.tags["git.uncommitted"] == "false" and state.patches == {}
    assert state.tags["command"] == "python -m mlops_llm.train 'dataset=数据.jsonl'"
    assert f"mlflow=={state.tags['version.mlflow']}\n" in state.packages


def test_the_patch_restores_what_was_not_committed(checkout):
    (checkout / "kept.py").write_text("one = 2\n")
    (checkout / "new.py").write_text("fresh = True\n")
    (checkout / "数据.py").write_text("also = True\n")
    (checkout / "huge.bin").write_bytes(b"0" * (UNTRACKED_BYTES + 1))
    patch = describe(ARGV).patches["uncommitted"]
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
        f"pwd: {PASSWORD}",
        f"secret: {PASSWORD} with blanks",
        f"password = '{PASSWORD} with.dots'",
        f"password={PASSWORD}.dots",
        f"Authorization: Basic {PASSWORD}",
        f"Endpoint=https://x;AccountKey={PASSWORD};Suffix=y",
        f"curl -u me:{PASSWORD} https://host/x",
        f"https://host/x?a=1&password={PASSWORD}&b=2",
        f"tool --api-key {PASSWORD} --verbose",
        f"accessKeySecret: {PASSWORD}",
        "token = '" + "hf_" + "a" * 30 + "'  # " + "correct",
    ],
)
def test_no_credential_of_a_changed_or_new_file_is_in_the_patch(checkout, line):
    (checkout / "kept.py").write_text(f"{line}\n")
    (checkout / "new.sh").write_text(f"{line}\n")
    patch = describe(ARGV).patches["uncommitted"]
    assert patch.count("***") >= 2
    assert PASSWORD not in patch and "hf_" + "a" * 30 not in patch


def test_a_long_patch_is_cut_with_a_mark(checkout, monkeypatch):
    monkeypatch.setattr(environment, "PATCH_BYTES", 300)
    (checkout / "kept.py").write_text("".join(f"line {number}\n" for number in range(200)))
    patch = describe(ARGV).patches["uncommitted"]
    assert patch.endswith("# cut here: the patch is over 1 MiB\n") and len(patch) < 400


def test_many_new_files_take_one_look_and_the_index_stays_as_it_is(checkout):
    for number in range(300):
        (checkout / f"new {number}.txt").write_text(f"{number}\n")
    before = (checkout / ".git" / "index").read_bytes()
    patch = describe(ARGV).patches["uncommitted"]
    assert patch.count("new file mode") == 300
    assert (checkout / ".git" / "index").read_bytes() == before
    listed = subprocess.run(["git", "status", "--short"], capture_output=True, text=True, check=True).stdout
    assert listed.count("?? ") == 300


def test_a_new_file_that_vanishes_takes_no_other_out_of_the_patch(checkout, monkeypatch):
    (checkout / "stays.txt").write_text("it stays\n")
    (checkout / "draft.txt").write_text("it goes\n")
    is_small = environment._is_small

    def and_gone(file):
        found = is_small(file)
        if file.name == "draft.txt":
            file.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(environment, "_is_small", and_gone)
    patch = describe(ARGV).patches["uncommitted"]
    assert "+it stays" in patch and "draft" not in patch


def test_changes_of_the_package_are_seen_from_another_checkout(checkout, tmp_path_factory, monkeypatch):
    package = tmp_path_factory.mktemp("package")
    subprocess.run(["git", "clone", "--quiet", str(checkout), str(package)], check=True, capture_output=True)
    monkeypatch.setattr(environment, "__file__", str(package / "kept.py"))
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "second"]
    subprocess.run(commit, cwd=package, check=True, capture_output=True)
    assert describe(ARGV).tags["git.mlops_llm_uncommitted"] == "false"
    (package / "kept.py").write_text("one = 3\n")
    state = describe(ARGV)
    assert set(state.patches) == {"mlops_llm"} and "+one = 3" in state.patches["mlops_llm"]
    assert (state.tags["git.uncommitted"], state.tags["git.mlops_llm_uncommitted"]) == ("false", "true")
    assert state.tags["git.mlops_llm_commit"] != state.tags["git.commit"]


def test_a_process_lives_until_it_ends():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tag = environment.process(child.pid)
        assert environment.lives(tag)
        pid, _, started = tag.partition(":")
        assert environment.lives(f"{pid}:{float(started) + 1.0:.2f}"), "a clock that was set"
        assert not environment.lives(f"{pid}:{float(started) + 60:.2f}"), "an id that is used again"
    assert not environment.lives(tag)
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    tag = environment.process(ended.pid)
    assert ended.stdout and ended.stdout.read() == b""  # it is at its end, and waits for whoever collects it
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not environment.lives(tag)
    ended.wait()
    assert not environment.lives("") and not environment.lives("x:y")


def believed(**tags: str) -> bool:
    return environment.believed_alive({key.replace("_", "."): value for key, value in tags.items()})


def test_a_run_here_is_looked_up_and_one_elsewhere_is_believed_by_its_heartbeat():
    here, now = environment.host(), time.time()
    assert believed(run_host=here, run_process=environment.process(os.getpid()), run_heartbeat="0")
    assert not believed(run_host=here, run_process="1:0.0", run_heartbeat=str(now))
    for elsewhere in ("other/1/2", here.rpartition("/")[0] + "/7", f"{here.partition('/')[0]}/rebooted/1"):
        assert believed(run_host=elsewhere, run_process="1:0.0", run_heartbeat=str(now - 60))
        assert not believed(run_host=elsewhere, run_process="1:0.0", run_heartbeat=str(now - environment.SILENCE - 1))
    assert not believed()


def test_the_tags_of_a_process_say_that_it_lives():
    before = int(clock.now())
    tags = environment.process_tags()
    assert psutil.Process(int(tags["run.process"].partition(":")[0])).is_running()
    assert before <= int(tags["run.heartbeat"]) <= clock.now()


def test_long_texts_are_cut_with_a_mark():
    assert run._cut("x" * 100, 100) == "x" * 100
    cut = run._cut("y" * 101, 100, "; whole in config.yaml")
    assert len(cut) == 100 and cut.endswith("… (cut; whole in config.yaml)")


def test_telemetry_is_off_unless_the_user_turns_it_on():
    code = "import mlops_llm.tracking.store, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    for given, wanted in ((None, "true"), ("false", "false")):
        env = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
        env |= {} if given is None else {"MLFLOW_DISABLE_TELEMETRY": given}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted


def test_what_a_package_carries_along_for_itself_is_not_installed(tmp_path, monkeypatch):
    for folder, name in (("_vendor", "carried"), ("site", "installed")):
        info = tmp_path / folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
        monkeypatch.syspath_prepend(tmp_path / folder)
    found = environment._packages.__wrapped__()
    assert "installed==1.0" in found and "carried==1.0" not in found
