"""Commands that go through the queue, by real commands, real workers and a real record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE as EVAL
from mlops_llm.launch.__main__ import STAGE as LAUNCH
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Again
from mlops_llm.launch.queue import Queue
from mlops_llm.tracking import environment, queued
from mlops_llm.train.__main__ import STAGE as TRAIN
from tests.commands import SMOKE, start, wait_for, wait_for_step
from tests.forks import Fork
from tests.processes import told
from tests.record import client, run_of


@pytest.fixture
def queue(here: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """An empty queue, and a folder with a record of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(here / "queue"))
    return Queue()


Process = subprocess.Popen[str] | Fork


@pytest.fixture
def worker(here: Path) -> Iterator[Callable[..., Process]]:
    """A function that starts a worker; it does not outlive the test, nor do its jobs."""
    started: list[Process] = []

    def work(fresh: bool = False) -> Process:
        started.append(start(here, "op=work", "op.until_empty=true", stage="launch", fresh=fresh))
        return started[-1]

    yield work
    for each in started:
        each.kill()
        each.communicate()
    for job in Queue().jobs():
        if job.process and job.state is State.running:
            os.killpg(int(job.process.partition(":")[0]), signal.SIGKILL)


def run(stage: Any, *words: str, capfd: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command prints."""
    capfd.readouterr()
    got = launch(stage, list(words))
    out, err = capfd.readouterr()
    assert got == code and "Traceback" not in err, out + err
    return err if code else out


@pytest.mark.parametrize(
    ("stage", "words", "said"),
    [
        (TRAIN, ["+experiment=sft_sales", "trainer.max_stepz=5"], "did you mean max_steps?"),
        (TRAIN, ["+experiment=sft_sales", "trainer.max_steps=0"], "trainer.max_steps: is 0"),
        (TRAIN, ["+experiment=sft_sales", "op=plan"], "only shows something"),
        (TRAIN, ["-m", "+experiment=sft_sales", "trainer.max_steps=5,0"], "trainer.max_steps: is 0"),
        (TRAIN, ["resume=nobody"], "no run is called 'nobody'"),
        (DATA, ["op=list"], "only shows something"),
        (DATA, ["op=stats", "dataset=sales_sft", "launch.tries=0"], "launch.tries: is 0"),
        (DATA, ["-m", "op=stats", "dataset=sales_sft,sales_dpo", "launch=local,queue"], "launch: cannot be swept"),
    ],
)
def test_a_wrong_command_is_refused_when_it_is_queued(
    queue: Queue, here: Path, capfd: pytest.CaptureFixture[str], stage: Any, words: list[str], said: str
) -> None:
    place = [] if any(word.startswith("launch=") for word in words) else ["launch=queue"]
    assert said in run(stage, *words, *place, capfd=capfd, code=2)
    assert queue.jobs() == [] and not (here / "outputs").exists()


def test_a_command_waits_in_the_record_and_what_it_needs_is_said(
    queue: Queue, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_API_KEY", "canary-word-0123")
    words = [
        "+experiment=grpo_math",
        "reward=[http]",
        "reward.http.url=http://127.0.0.1:9",
        "reward.http.api_key_env=REWARD_API_KEY",
    ]
    said = run(TRAIN, *words, "project=mine", "run_name=数学 1", "launch=queue", capfd=capfd)
    assert "queued as job 1: run 数学 1" in said and "REWARD_API_KEY in the worker's environment\n" in said
    assert "no worker runs on this machine" in said
    waiting = run_of(client(here), "数学 1")
    assert waiting.info.status == "SCHEDULED" and waiting.data.tags["queue.job"].startswith("1 on ")
    assert waiting.data.tags["stage"] == "train" and "launch" not in waiting.data.tags["command"]
    taken = run(TRAIN, *words, "run_name=数学 1", "launch=queue", capfd=capfd, code=2)
    assert "is taken by scheduled run" in taken and len(queue.jobs()) == 1
    queue._storage.close()
    files = [path for path in here.rglob("*") if path.is_file()]
    assert files and not any(b"canary-word" in path.read_bytes() for path in files)
    assert f"look at 1:  http://127.0.0.1:5000/#/experiments/1/runs/{waiting.info.run_id}" in run(
        LAUNCH, "op=list", capfd=capfd
    )
    run(LAUNCH, "op=cancel", "op.job=数学 1", capfd=capfd)
    assert run_of(client(here), "数学 1").info.status == "KILLED"
    assert "job 1 is cancelled already" in run(LAUNCH, "op=cancel", "op.job=1", capfd=capfd, code=2)
    run(DATA, "-m", "op=stats", "dataset=数据 1,sales_dpo", "run_name=sweep", "launch=queue", capfd=capfd)
    (sweep,) = [job.command for job in queue.jobs() if job.command.name == "sweep"]
    assert sweep.words[0] == "-m" and sweep.again is Again.no and run_of(client(here), "sweep").info.status == "SCHEDULED"


@pytest.mark.slow
def test_a_run_whose_command_died_before_the_queue_had_it_is_taken_away(
    here: Path, queue: Queue, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = ("op=stats", "dataset=sales_sft")
    child = os.fork()
    if not child:
        monkeypatch.setattr(queued, "note", lambda *words: os.kill(os.getpid(), signal.SIGKILL))
        launch(DATA, [*stats, "launch=queue", "run_name=lost"])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert run_of(client(here), "lost").info.status == "SCHEDULED" and not queue.jobs()
    run(DATA, *stats, "launch=queue", "run_name=waits", capfd=capfd)
    host = environment.process_tags() | {"run.process": "1:0"}  # as if that command's process had ended
    for key, value in host.items():
        client(here).set_tag(run_of(client(here), "waits").info.run_id, key, value)
    run(DATA, *stats, "run_name=lost", capfd=capfd)
    assert run_of(client(here), "lost").info.status == "FINISHED"
    assert run_of(client(here), "waits").info.status == "SCHEDULED"


def test_a_file_is_one_of_the_folder_where_its_command_was_typed(
    queue: Queue, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["op=human_export", "models=[tiny]", "dataset=sales_eval", "limit=2", "output=评分 表.xlsx"]
    run(EVAL, *words, "launch=queue", capfd=capfd)
    (job,) = queue.jobs()
    assert "op.file='评分 表.xlsx'" in job.command.words and job.command.folder == str(here)
    assert not any(word.startswith("output=") for word in job.command.words)


def test_jobs_outlive_their_worker_and_a_killed_one_goes_on(
    queue: Queue, here: Path, capfd: pytest.CaptureFixture[str], worker: Callable[..., Process]
) -> None:
    tiny = [*SMOKE, "samples.count=0", "register_as=null", "trainer.max_steps=60", "trainer.eval_steps=5", "seed=3"]
    run(TRAIN, *tiny, "run_name=killed", "launch=queue", capfd=capfd)
    for name in ("stopped", "taken"):
        run(DATA, "op=stats", "dataset=sales_sft", f"run_name={name}", "launch=queue", capfd=capfd)
    run(LAUNCH, "op=cancel", "op.job=taken", capfd=capfd)
    first = worker()
    wait_for(lambda: queue.find("killed").process != "", first)
    pid = int(queue.find("killed").process.partition(":")[0])
    wait_for_step(here, "killed", 12, first)
    first.kill()
    first.wait()
    os.killpg(pid, signal.SIGSTOP)  # the job outlived its worker
    assert run_of(client(here), "killed").info.status == "RUNNING"
    os.killpg(pid, signal.SIGKILL)
    told(lambda: psutil.wait_procs([psutil.Process(pid)], timeout=60))
    assert "its process is gone" in run(LAUNCH, "op=list", capfd=capfd)
    last = worker(fresh=True)
    wait_for(lambda: queue.find("stopped").process != "", last)
    run(LAUNCH, "op=cancel", "op.job=stopped", capfd=capfd)
    out, err = last.communicate(timeout=200)
    assert last.returncode == 0 and "Traceback" not in err, out + err
    states = {job.command.name: job.state.name for job in queue.jobs()}
    assert states == {"killed": "done", "stopped": "cancelled", "taken": "cancelled"}, out + err
    assert queue.find("killed").starts == 2 and "goes on" in out
    statuses = {name: run_of(client(here), name).info.status for name in states}
    assert statuses == {"killed": "FINISHED", "stopped": "KILLED", "taken": "KILLED"}
    killed = run_of(client(here), "killed")
    assert killed.data.tags["resume.verified"] == "true" and killed.info.run_id == queue.find("killed").command.run
    assert "resume verified" in run(LAUNCH, "op=logs", "op.job=killed", "op.follow=true", capfd=capfd)
    listed = run(LAUNCH, "op=list", "run_name=listed", capfd=capfd)
    assert "3 jobs" in listed and "no worker runs" in listed
    jobs = json.loads((here / "outputs/listed/result.json").read_text())["jobs"]
    assert [job["state"] for job in jobs] == ["done", "cancelled", "cancelled"]
    assert all(job["ended"] <= time.time() for job in jobs)
