"""The queue's order, the rule of what becomes of a job, and a worker with real processes that are scripts."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_llm.errors import UserError
from mlops_llm.launch import process, worker
from mlops_llm.launch.jobs import AWAY, Job, State, after, loaded
from mlops_llm.launch.ops import cancel
from mlops_llm.launch.ops.cancel import Cancel
from mlops_llm.launch.ops.list import List
from mlops_llm.launch.ops.logs import Logs
from mlops_llm.launch.ops.work import Work
from mlops_llm.launch.place import Again, Command, named_variables
from mlops_llm.launch.places.queue import OnQueue
from mlops_llm.launch.queue import KEPT, Queue
from mlops_llm.launch.worker import Worker
from mlops_llm.tracking import environment, queued
from mlops_llm.tracking.queued import Seen
from mlops_llm.tracking.refusals import AwayError
from tests.processes import gone

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """An empty queue that commands find."""
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path / "queue"))
    return Queue()


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run id -> what the record says of it, or how it was closed."""
    kept: dict[str, Any] = {}

    def look(address: str, run: str, folder: Path) -> Seen:
        if kept.get("away"):
            kept["away"] -= 1
            raise UserError("the record cannot be reached")
        found = kept.get(run, Seen("SCHEDULED"))
        return found if isinstance(found, Seen) else Seen(found[0])

    monkeypatch.setattr(queued, "look", look)
    monkeypatch.setattr(queued, "close", lambda address, run, status, reason: kept.update({run: (status, reason)}))
    return kept


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """A function that makes a job of a shell script; no process of it outlives the test."""
    (tmp_path / "at").mkdir()

    def make(text: str, name: str = "one", tries: int = 3, again: Again = Again.resume) -> Job:
        python = tmp_path / f"{name}.sh"
        python.write_text(f"#!/bin/sh\n{text}\n")
        python.chmod(0o755)
        given = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        folder = str(tmp_path / "at")
        return Job(Command("data", ("op=x",), name, name * 3, "http://page", again, (), folder, str(python), given), tries)

    yield make
    for each in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in each.info["cmdline"] or ()):
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


RUNNING = Job(Command("train", ("a=1",), "run", "id", "link", Again.resume), 2, 7, state=State.running, starts=1)


@pytest.mark.parametrize(
    ("job", "code", "status", "state"),
    [
        (RUNNING, 0, "", State.done),
        (RUNNING, 1, "", State.failed),
        (RUNNING, 2, "", State.failed),
        (RUNNING, 143, "", State.cancelled),
        (RUNNING, -9, "RUNNING", State.waiting),
        (RUNNING, 137, "RUNNING", State.waiting),
        (RUNNING, -9, "FINISHED", State.done),
        (replace(RUNNING, starts=2), -9, "RUNNING", State.failed),
        (replace(RUNNING, cancel=True), -9, "RUNNING", State.cancelled),
        (RUNNING, None, "FINISHED", State.done),
        (RUNNING, None, "FAILED", State.failed),
        (RUNNING, None, "RUNNING", State.waiting),
        (RUNNING, None, "KILLED", State.waiting),
        (RUNNING, None, "SCHEDULED", State.waiting),
        (replace(RUNNING, command=replace(RUNNING.command, again=Again.no)), -9, "RUNNING", State.failed),
        (replace(RUNNING, command=replace(RUNNING.command, again=Again.no)), -9, "SCHEDULED", State.waiting),
        (replace(RUNNING, state=State.cancelled), 0, "", State.cancelled),
        (replace(RUNNING, starts=2), 2, "FINISHED", State.done),
        (replace(RUNNING, starts=2), 1, "FINISHED", State.failed),
        (RUNNING, 2, "FINISHED", State.failed),
    ],
)
def test_what_becomes_of_a_job_whose_process_ended(job: Job, code: int | None, status: str, state: State) -> None:
    now = after(job, code, status, "said")
    assert now.state is state
    assert (now.reason == "said") == ((code in (1, 2) or status == "FAILED") and state is State.failed)
    assert loaded(now.dumped()) == now


def test_a_job_whose_record_went_away_before_its_work_began_waits_again() -> None:
    now = after(RUNNING, AWAY, "SCHEDULED", "it does not answer")
    assert (now.state, now.reason) == (State.waiting, "it does not answer")
    assert after(replace(RUNNING, starts=RUNNING.tries), AWAY, "SCHEDULED", "said").state is State.failed
    assert after(RUNNING, AWAY, "FAILED", "said").state is State.failed


def test_jobs_come_in_order_and_one_that_was_put_back_first(queue: Queue, script: Callable[..., Job]) -> None:
    assert queue.jobs() == [] and not queue.folder.exists()
    first, second, third = (queue.add(script("", name)) for name in ("a", "b", "c"))
    assert [first.number, second.number, third.number] == [1, 2, 3]
    taken = queue.take()
    assert taken and taken.number == 1 and taken.state is State.running and taken.starts == 1
    queue.change(1, lambda job: after(job, -9, "RUNNING"))
    queue.change(2, lambda job: replace(job, state=State.cancelled))
    assert [job.number for job in iter(queue.take, None) if job] == [1, 3]
    assert queue.find("c").number == queue.find("3").number == queue.find("ccc").number == 3
    with pytest.raises(UserError, match="no job is called"):
        queue.find("d")
    assert queue.folder.stat().st_mode & 0o077 == 0


def test_a_death_between_two_writes_loses_no_job_and_old_ones_are_forgotten(
    queue: Queue, script: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_llm.launch.queue.KEPT", 2)
    assert KEPT >= 100
    for name in "abcde":
        queue.add(script("", name))
        queue.log(1).write_text("text")
    for number in (1, 2, 3):
        queue.change(number, lambda job: replace(job, state=State.done))
    queue._storage.flush_queue()
    queue.mend()
    queue.mend()
    assert [job.number for job in queue.jobs()] == [2, 3, 4, 5] and not queue.log(1).exists()
    assert [job.number for job in iter(queue.take, None) if job] == [4, 5]


def test_a_worker_runs_one_after_the_other(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "said"
    for name, code in (("a", 0), ("b", 1), ("c", 0)):
        text = f'echo "$* in $PWD for $MLFLOW_RUN_ID of $MLFLOW_TRACKING_URI"; echo {name} >> {said}; sleep 0.1; '
        queue.add(script(f'{text} echo {name} >> {said}; echo "error: so it is" >&2; exit {code}', name))
    worker = Worker(queue, 1)
    worker.work(until_empty=True)
    assert said.read_text().split() == ["a", "a", "b", "b", "c", "c"]
    assert [job.state.name for job in queue.jobs()] == ["done", "failed", "done"]
    assert [job.number for job in worker.ended] == [1, 2, 3]
    assert queue.find("b").reason == "so it is" and record == {"bbb": ("FAILED", "so it is")}
    capfd.readouterr()
    Logs("a").carry_out()
    assert f"-m mlops_llm.data op=x in {tmp_path}/at for aaa of sqlite:///{tmp_path}/mlflow.db" in capfd.readouterr().out


def test_several_jobs_at_once(queue: Queue, script: Callable[..., Job], record: dict[str, Any], tmp_path: Path) -> None:
    for mine, other in (("a", "b"), ("b", "a")):
        wait = f"for i in $(seq 200); do test -e {tmp_path / other} && exit 0; sleep 0.05; done; exit 1"
        queue.add(script(f"touch {tmp_path / mine}; {wait}", mine))
    Worker(queue, 2).work(until_empty=True)
    assert [job.state.name for job in queue.jobs()] == ["done", "done"]


@pytest.mark.parametrize("begun", [True, False])
def test_a_killed_job_goes_on_or_is_repeated_as_often_as_it_may(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], tmp_path: Path, begun: bool
) -> None:
    said, output = tmp_path / "said", tmp_path / "outputs" / "one"
    output.mkdir(parents=True)
    (output / "half").touch()
    record["oneoneone"] = Seen("RUNNING", output=output, begun=begun)
    queue.add(script(f'echo "$3 for $MLFLOW_RUN_ID" >> {said}; kill -9 $$'))
    Worker(queue, 1).work(until_empty=True)
    again = "resume=oneoneone for " if begun else "op=x for oneoneone"
    assert said.read_text().splitlines() == ["op=x for oneoneone", again, again]
    (job,) = queue.jobs()
    assert job.state is State.failed and job.reason == "its process was killed, at start 3 of 3"
    assert record["oneoneone"] == ("FAILED", job.reason)
    assert (output / "half").exists() == begun and (tmp_path / "outputs/one.interrupted-1/half").exists() != begun


def test_what_a_killed_job_had_come_to_is_asked_until_the_record_answers(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LOOK_AGAIN", 0.05)
    record |= {"away": 3, "oneoneone": Seen("FINISHED")}
    queue.add(script("kill -9 $$", tries=1))
    Worker(queue, 1).work(until_empty=True)
    assert queue.find("one").state is State.done and not record["away"]


def test_the_worker_dies_and_its_job_does_not(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], tmp_path: Path
) -> None:
    queue.add(script(f"echo x >> {tmp_path / 'starts'}; while ! test -e {tmp_path / 'go'}; do sleep 0.05; done"))
    job = queue.take()
    assert job
    mark = f"{queue.folder}/1"  # the worker is killed before it noted the process that it started
    child = process.begin(job.command, job.command.words, mark, queue.log(1), adopt=True)
    wait_until((tmp_path / "starts").exists)
    worker = Worker(queue, 1)
    thread = threading.Thread(target=worker.work, args=(True,))
    thread.start()
    wait_until(lambda: queue.find("1").process)
    assert queue.find("1").process == environment.process(child.pid)
    with pytest.raises(UserError, match=f"a worker works on this queue already .process {os.getpid()}"):
        Worker(queue, 1).work(until_empty=True)
    assert thread.is_alive()
    record["oneoneone"] = Seen("FINISHED")
    (tmp_path / "go").touch()
    child.wait()
    thread.join(30)
    assert queue.find("1").state is State.done and (tmp_path / "starts").read_text() == "x\n"


def test_cancel(queue: Queue, script: Callable[..., Job], record: dict[str, Any], tmp_path: Path) -> None:
    stubborn = f"trap '' TERM; sleep 300 & echo $! > {tmp_path / 'child'}; while :; do sleep 0.1; done"
    queue.add(script(stubborn, "a"))
    queue.add(script(f"touch {tmp_path / 'b'}", "b"))
    worker = Worker(queue, 1)
    thread = threading.Thread(target=worker.work, args=(True,))
    thread.start()
    Cancel("b").carry_out()
    wait_until((tmp_path / "child").exists)
    Cancel("1", patience=0.2).carry_out()
    thread.join(30)
    assert [job.state.name for job in queue.jobs()] == ["cancelled", "cancelled"] and not (tmp_path / "b").exists()
    assert {run: status for run, (status, _) in record.items()} == {"aaa": "KILLED", "bbb": "KILLED"}
    child = int((tmp_path / "child").read_text())
    assert gone(child)
    with pytest.raises(UserError, match="job 1 is cancelled already"):
        Cancel("1").carry_out()


@pytest.mark.parametrize("answers", [True, False])
def test_a_job_that_is_cancelled_while_the_worker_looks_for_its_record_does_not_run(
    answers: bool,
    queue: Queue,
    script: Callable[..., Job],
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def look(address: str) -> None:
        Cancel("one").carry_out()
        if not answers:
            raise AwayError("the tracking server does not answer")

    monkeypatch.setattr(worker, "check_address", look)
    monkeypatch.setattr(cancel, "_START", 0.1)
    queue.add(script(f"sleep 1; touch {tmp_path / 'done'}"))
    Worker(queue, 1).work(until_empty=True)
    (job,) = queue.jobs()
    assert job.state is State.cancelled and not job.process and queue.take() is None
    assert record == {"oneoneone": ("KILLED", "cancelled")} and not (tmp_path / "done").exists()


def test_a_job_whose_folder_is_gone_fails_alone(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], tmp_path: Path
) -> None:
    gone = script("", "a")
    queue.add(replace(gone, command=replace(gone.command, folder=str(tmp_path / "nowhere"))))
    queue.add(script("", "b"))
    Worker(queue, 1).work(until_empty=True)
    assert [job.state.name for job in queue.jobs()] == ["failed", "done"]
    assert "nowhere: No such file or directory" in queue.find("a").reason and record["aaa"][0] == "FAILED"


def test_a_job_waits_for_its_tracking_server(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    job = script("")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    queue.add(replace(job, command=replace(job.command, environment=away)))
    Worker(queue, 1).work(until_empty=True)
    (job,) = queue.jobs()
    assert job.state is State.waiting and job.starts == 0 and "does not answer" in job.reason
    List().carry_out()
    assert queue.take() == replace(queue.jobs()[0], state=State.running, starts=1)


def test_jobs_of_a_record_that_is_away_hold_up_no_others_and_keep_their_order(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any]
) -> None:
    for name, where in {"a": "http://127.0.0.1:9", "b": "", "c": "http://127.0.0.1:9", "d": "", "e": "nonsense://x"}.items():
        job = script("", name)
        told = {"MLFLOW_TRACKING_URI": where} if where else job.command.environment
        queue.add(replace(job, command=replace(job.command, environment=told)))
    ended = Work(until_empty=True).carry_out()
    states = {"a": "waiting", "b": "done", "c": "waiting", "d": "done", "e": "failed"}
    assert {job.command.name: job.state.name for job in queue.jobs()} == states
    assert ended.failed and ended.table["jobs ended"] == 3
    assert str(ended.table["still waiting"]).startswith("2, for their records (job 1: ")
    assert "nonsense" in queue.find("e").reason
    assert [job.command.name for job in (queue.take(), queue.take()) if job] == ["a", "c"]


def test_a_run_that_could_not_be_closed_is_closed_once_the_record_is_back(
    queue: Queue, script: Callable[..., Job], record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*words: str) -> None:
        raise UserError("the record cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(queued, "close", away)
        queue.add(script("exit 2"))
        Worker(queue, 1).work(until_empty=True)
        assert queue.find("one").owed and not record
    Worker(queue, 1).work(until_empty=True)
    assert record["oneoneone"] == ("FAILED", "exit code 2") and not queue.find("one").owed


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("http://tracking:5000", ["A_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"]),
        (
            "https://me:canary-word@tracking",
            ["A_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"],
        ),
        ("sqlite:////home/me/mlflow.db", ["A_KEY"]),
    ],
)
def test_what_lets_a_command_into_its_record_is_said_by_name(
    address: str, names: list[str], queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "canary-name")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary-word")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    monkeypatch.delenv("A_KEY", raising=False)
    monkeypatch.setattr(queued, "note", lambda *told: None)
    said = OnQueue().send(Command("eval", ("op=score",), "run", "id", "link", Again.resume, ("A_KEY",)))
    needed = [line.split()[1] for line in said if line.startswith("needs:")]
    assert needed == names and "canary" not in "".join(said)
    assert [line.endswith("not set here either") for line in said if line.startswith("needs:")] == [
        True,
        *[False] * (len(names) - 1),
    ]
    queue._storage.close()
    assert not any(b"canary" in path.read_bytes() for path in queue.folder.rglob("*") if path.is_file())


def test_no_secret_is_in_the_queue(queue: Queue, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Job]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary-word@tracking:5000")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:canary-word@hub")
    monkeypatch.setenv("JUDGE_API_KEY", "canary-word")
    monkeypatch.setenv("HF_HOME", "/models")
    variables = named_variables({"judge.api_key_env": "JUDGE_API_KEY", "judge.base_url": "http://x", "other_env": None})
    assert variables == ("JUDGE_API_KEY",)
    command = Command("eval", ("op=score",), "run", "id", "link", Again.resume, variables)
    assert command.environment["HF_HOME"] == "/models" and "HF_ENDPOINT" not in command.environment
    queue.add(Job(command, 3))
    queue._storage.close()
    written = [path.read_bytes() for path in queue.folder.rglob("*") if path.is_file()]
    assert written and not any(b"canary-word" in each for each in written)
    assert process.address_of(command, os.environ) == "http://me:canary-word@tracking:5000"
    with pytest.raises(UserError, match="the password for http://tracking:5000 is not here"):
        process.address_of(command, {"MLFLOW_TRACKING_URI": "http://other:5000"})
