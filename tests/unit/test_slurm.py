"""What SLURM says, read; what becomes of a job; what `launch=slurm` refuses. No SLURM is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.launch import process, stopping
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.jobs import AWAY, State
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.places import slurm as places
from mlops_llm.launch.places.slurm import OnSlurm
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.slurm import array, asking, batch, node
from mlops_llm.launch.slurm.fate import End, fate
from mlops_llm.launch.slurm.folder import JobFolder, Progress, Sheet
from mlops_llm.tracking import queued, store

SHOWN = (
    "JobId=6 JobName=pre UserId=root(0) GroupId=root(0) JobState=PENDING Reason=PartitionTimeLimit Dependency=(null) "
    "Requeue=1 Restarts=2 BatchFlag=1 ExitCode=0:0 EndTime=2026-11-28T21:05:02 PreemptTime=None NodeList= Comment=a=b "
    "TresPerNode=gres:gpu:1"
)


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM was not asked before."""
    monkeypatch.setattr(asking, "_told", {})


def command(**more: object) -> Command:
    words = ("dataset=加了 100 行", "run_name=one")
    return Command("train", words, "one", "a1", "http://x/#/runs/a1", Again.resume, folder="/", environment={}, **more)  # type: ignore[arg-type]


def test_what_the_controller_says_is_read() -> None:
    facts = asking.controlled(SHOWN)
    assert (facts["JobState"], facts["Comment"], facts["Restarts"]) == ("PENDING", "a=b", "2")
    look = asking.look_of(facts)
    assert look.state is State.waiting
    assert look.note == "waits: PartitionTimeLimit, which does not pass by itself, started 2 times before"
    assert not asking.is_preempted(facts)


@pytest.mark.parametrize(
    ("state", "expected", "said"),
    [
        ("COMPLETED", State.failed, "SLURM ended it as COMPLETED, exit code 0:0 on n1"),
        ("CANCELLED by 0", State.cancelled, "cancelled"),
        ("OUT_OF_MEMORY", State.failed, "more memory than it asked for"),
        ("TIMEOUT", State.failed, "time limit"),
        ("NODE_FAIL", State.failed, "its node failed"),
        ("RUNNING", State.running, "running on n1"),
        ("PENDING", State.waiting, "waits"),
    ],
)
def test_of_what_accounting_says_the_last_start_counts(state: str, expected: State, said: str) -> None:
    text = "JobID|State|ExitCode|NodeList|Reason\n6|REQUEUED|0:0|n2|None\n6.batch|CANCELLED|0:15|n2|\n"
    look = asking.look_of(asking.accounted(f"{text}6|{state}|0:0|n1|None\n6.0|FAILED|15:0|n1|\n"))
    assert look.state is expected
    assert said in look.note
    assert asking.accounted("JobID|State\n") == asking.accounted("") == {}


class Clock:
    """A clock that only sleeping moves on; whoever waits for ever fails."""

    now = 0.0

    def monotonic(self) -> float:
        """The time in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        assert self.now < 1000


NO_JOB = "slurm_load_jobs error: Invalid job id specified"
KEPT = "JobID|State|ExitCode|NodeList|Reason|Restarts\n"


def answering(monkeypatch: pytest.MonkeyPatch, sacct: str, refused: str = "") -> None:
    """A controller that knows no job, and accounting that prints this or refuses with that."""

    def ask(words: list[str]) -> str:
        if words[0] == "scontrol":
            raise LostError(NO_JOB, "launch")
        if refused:
            raise LostError(refused, "launch")
        return sacct

    monkeypatch.setattr(asking, "ask", ask)


@pytest.mark.parametrize(
    ("sacct", "refused", "forgotten"),
    [
        (KEPT, "", True),
        (f"{KEPT}6|RUNNING|0:0|n1|None|0\n", "", True),
        ("", "Slurm accounting storage is disabled", True),
        ("", "Problem talking to the database: Connection refused", False),
    ],
    ids=["no row", "never closed", "no accounting", "away"],
)
def test_a_job_that_slurm_does_not_know_is_lost_after_a_while(
    sacct: str, refused: str, forgotten: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, sacct, refused)
    folder = job_folder(tmp_path, Progress(1))
    job, place = Sent(command(tracking=""), "slurm", {}, {"job": "6", "folder": str(folder.path)}, 1.0), OnSlurm()
    now, seen = [1000.0], [queued.Seen("RUNNING", alive=True)]
    monkeypatch.setattr(places, "time", SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setattr(process, "address_of", lambda *_: "")
    monkeypatch.setattr(queued, "look", lambda *_: seen[0])
    for seconds in (0, 60, 60, 10):  # the first within the patience, the third after it, while its run lives
        now[0] += seconds
        with pytest.raises(LostError):
            place.look(job)
    seen[0] = queued.Seen("RUNNING")
    if not forgotten:
        with pytest.raises(LostError):
            place.look(job)
        return
    look = place.look(job)
    assert look.state is State.failed
    assert look.note.endswith("and its process left no word")
    monkeypatch.setattr(asking, "ask", lambda words: SHOWN)
    assert place.look(job).state is State.waiting
    answering(monkeypatch, sacct, refused)
    with pytest.raises(LostError):
        place.look(job)


def test_a_job_of_an_array_that_slurm_does_not_know_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, KEPT)
    clock = Clock()
    monkeypatch.setattr(array, "time", clock)
    array._wait(SimpleNamespace(job_id="6_0", paths=SimpleNamespace(result_pickle=tmp_path / "none")))
    assert 100 < clock.now < 200


def test_slurm_is_asked_the_more_rarely_the_longer_it_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked, state = Clock(), list[float](), ["PENDING"]
    monkeypatch.setattr(asking, "time", clock)

    def facts(job: str) -> asking.Facts:
        asked.append(clock.now)
        return {"JobState": state[0], "RunTime": str(clock.now)}

    monkeypatch.setattr(asking, "facts_of", facts)
    for now in range(900):
        state[0] = "RUNNING" if now >= 700 else "PENDING"
        asking.facts_lately("6")
        clock.sleep(1)
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses[:10] == [1] * 10
    assert max(pauses) == 10
    assert len(asked) < 150
    changed = next(number for number, when in enumerate(asked) if when >= 700)
    assert pauses[changed : changed + 10] == [1] * 10
    asking.facts_lately("7")
    assert asked[-1] == clock.now


def test_cancelling_tells_of_a_node_that_does_not_end_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, asked, folder = Clock(), list[list[str]](), job_folder(tmp_path, Progress(1))
    monkeypatch.setattr(places, "time", clock)
    monkeypatch.setattr(asking, "facts_of", lambda job: {"JobState": "COMPLETING", "NodeList": "n1"})
    monkeypatch.setattr(asking, "ask", lambda words: asked.append(words))
    OnSlurm().stop(Sent(command(), "slurm", {}, {"job": "6", "folder": str(folder.path)}, 1.0), 30)
    assert asked == [["scancel", "--signal=TERM", "6"], ["scancel", "6"]]
    assert 140 < clock.now < 200
    assert "SLURM was told to end job 6, which is still completing on n1; see: scontrol show job 6" in caplog.text


def test_a_job_whose_folder_is_gone_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = list[list[str]](), ["PENDING"]
    monkeypatch.setattr(asking, "facts_of", lambda job: {"JobState": said[0]})

    def ask(words: list[str]) -> None:
        asked.append(words)
        said[0] = "CANCELLED"

    monkeypatch.setattr(asking, "ask", ask)
    OnSlurm().stop(Sent(command(), "slurm", {}, {"job": "6", "folder": str(tmp_path / "gone")}, 1.0), 30)
    assert asked == [["scancel", "6"]]
    assert not (tmp_path / "gone").exists()


def test_the_words_of_sbatch_become_one_line() -> None:
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name\n"
    assert asking.said("sbatch", text) == "invalid partition specified: x; Batch job submission failed: Invalid partition name"


@given(
    st.builds(
        End,
        st.sampled_from([None, 0, 1, 2, 130, 143, -9, -15, -12, 137, 5]),
        st.sampled_from(["", "saved at step 3"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from(Again),
    ),
    st.integers(0, 9),
    st.integers(1, 9),
)
def test_a_job_starts_again_only_while_there_is_reason_to_hope(end: End, idle: int, tries: int) -> None:
    found = fate(end, idle, tries)
    if end.code in (0, 1, 2):
        assert (found.starts, found.code) == (False, end.code)
    elif end.cancelled or end.again is Again.no:
        assert not found.starts
        assert found.code != 0
    elif found.starts:
        assert found.idle < tries
        assert found.idle == 0 if end.saved else True
    else:
        assert (found.idle, found.code) == (idle + 1, 137)
        assert found.idle >= tries


@pytest.mark.parametrize(
    ("facts", "earlier"),
    [
        ({"JobState": "RUNNING", "Restarts": "1"}, False),
        ({"JobState": "COMPLETING", "Restarts": "1"}, False),
        ({"JobState": "PENDING", "Restarts": "2"}, True),
        ({"JobState": "RUNNING", "Restarts": "2"}, True),
    ],
)
def test_the_script_of_an_earlier_start_judges_nothing(
    facts: dict[str, str], earlier: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(asking, "facts_of", lambda job: facts)
    asked: list[list[str]] = []
    monkeypatch.setattr(asking, "ask", lambda words: asked.append(words))
    folder = batch.found_folder(tmp_path, "one")
    folder.write(Sheet(command(), 3, 60.0, "vm/1", "python"))
    assert node.conclude(folder) == 137
    assert asked == ([] if earlier else [["scontrol", "requeue", "6"]])
    assert not folder.progress().over


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a node closes in the record: states and reasons. The job runs, and SLURM says no more of it."""
    found: list[tuple[str, str]] = []
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    monkeypatch.setattr(asking, "facts_of", lambda job: {"JobState": "RUNNING"})
    monkeypatch.setattr(node, "_check_record", lambda host, patience: None)
    monkeypatch.setattr(queued, "close", lambda address, run, status, reason: found.append((status, reason)))
    return found


def job_folder(tmp_path: Path, progress: Progress = Progress(), code: int | None = None, tries: int = 3) -> JobFolder:  # noqa: B008
    """The folder of a job that is so far, and whose command left that exit code."""
    folder = batch.found_folder(tmp_path, "one")
    folder.write(Sheet(command(), tries, 60.0, "vm/1", "python"))
    folder.note(progress)
    if code is not None:
        folder.code.write_text(str(code))
    return folder


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (-9, ("FAILED", "its process was killed, at start 3 of 3")),
        (143, ("FAILED", "told to stop, at start 3 of 3")),
        (2, ("FAILED", "rows: has no prompt")),
        (0, None),
    ],
)
def test_a_node_closes_the_run_of_a_job_that_is_over(
    code: int, expected: tuple[str, str] | None, tmp_path: Path, closed: list[tuple[str, str]]
) -> None:
    folder = job_folder(tmp_path, Progress(3, 2), code)
    folder.log("6").write_text("reading\nerror: rows: has no prompt\n")
    node.conclude(folder)
    assert folder.progress().over
    assert closed == ([expected] if expected else [])
    assert folder.progress().note == (expected[1] if expected else "")


def test_a_cancelled_job_and_one_that_is_refused_on_its_node_close_their_run_too(
    tmp_path: Path, closed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = job_folder(tmp_path, Progress(1), 143)
    folder.cancel.touch()
    assert node.conclude(folder) == 143
    monkeypatch.setattr(queued, "look", lambda address, run: queued.Seen("KILLED"))
    refused = job_folder(tmp_path, Progress(1))
    refused.write(replace(refused.sheet(), command=replace(command(), again=Again.no)))
    assert node.prepare(refused) == 2
    assert [status for status, _ in closed] == ["KILLED", "FAILED"]
    assert "does not go on by itself" in closed[1][1]


def test_a_record_that_a_node_must_not_write_is_left_alone(
    tmp_path: Path, closed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(host: str, patience: float) -> None:
        raise UserError("the record is a file, and several machines that write it would break it")

    monkeypatch.setattr(node, "_check_record", refuse)
    folder = job_folder(tmp_path)
    assert (node.prepare(folder), folder.progress().over, closed) == (2, True, [])


@pytest.mark.parametrize(("left", "code"), [(None, 0), (0, 0), (1, 1), (-15, 0)])
def test_a_job_that_is_put_back_after_its_run_had_finished_is_done(
    left: int | None, code: int, tmp_path: Path, closed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "look", lambda address, run: queued.Seen("FINISHED", begun=True))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("the command was started again"))
    folder = job_folder(tmp_path, Progress(1), left)
    assert (node.prepare(folder), node.run(folder), node.conclude(folder)) == (0, code, code)
    assert (folder.progress().over, folder.progress().code, closed) == (True, code, [])


def test_a_job_that_is_killed_each_time_ends_and_one_that_saves_does_not() -> None:
    idle, starts = 0, 1
    while (found := fate(End(-9), idle, 3)).starts:
        idle, starts = found.idle, starts + 1
    assert (starts, found.reason) == (3, "its process was killed, at start 3 of 3")
    assert fate(End(143, saved="saved at step 6"), 2, 3).reason == "told to stop; saved at step 6"
    assert fate(End(143, preempted=True), 2, 3).starts
    assert not fate(End(143), 2, 3).starts
    assert fate(End(AWAY), 0, 3).starts and "its record did not answer" in fate(End(AWAY), 2, 3).reason


def test_an_array_of_one_job_is_refused_before_anything_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch(DATA, ["op=stats", "dataset=nosuch", "hydra/launcher=submitit_slurm"]) == 2
    said = "error: hydra/launcher=submitit_slurm: is for a multirun; add -m, or send one job with launch=slurm\n"
    assert capfd.readouterr().err.endswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("saves", "facts", "expected"),
    [
        ([""] * 9, {}, 2),
        (["at step 3", "", "", "", ""], {}, 3),
        (["", "", "at step 6", "", "", ""], {}, 5),
        ([""] * 9, {"PreemptTime": "2026-11-28T21:05:02"}, 9),
        (["at step 3"], {"JobState": "CANCELLED"}, 0),
    ],
    ids=["never saves", "saved once", "saved again", "makes room", "cancelled"],
)
def test_a_job_of_an_array_goes_back_into_the_queue_while_there_is_reason_to_hope(
    saves: list[str], facts: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    told = {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": f"{tmp_path}/%j", "SLURM_JOB_ID": "8"}
    for name, value in {**told, "SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    asked: list[list[str]] = []
    monkeypatch.setattr(asking, "facts_of", lambda job: {"JobState": "RUNNING", **facts})
    monkeypatch.setattr(asking, "ask", lambda words: asked.append(words))
    monkeypatch.setattr(stopping, "heed", lambda: None)
    (tmp_path / "6_1").mkdir()
    for what in saves:
        before = len(asked)
        with pytest.raises(stopping.Terminated), array.leaves():
            if what:
                stopping.saved(what)
            raise stopping.Terminated
        if len(asked) == before:
            break
    assert asked == [["scontrol", "requeue", "6_1"]] * expected
    assert stopping.SAVED not in os.environ


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"nodes": 0}, "launch.nodes"),
        ({"gpus": -1}, "launch.gpus"),
        ({"cpus": 0}, "launch.cpus"),
        ({"memory": 0}, "launch.memory"),
        ({"memory": float("nan")}, "launch.memory"),
        ({"tries": 0}, "launch.tries"),
        ({"grace": 0}, "launch.grace"),
        ({"time": "soon"}, "launch.time"),
        ({"time": "1-24:00:00"}, "launch.time"),
        ({"time": "1"}, "launch.time"),
        ({"time": "1:30"}, "launch.time"),
        ({"settings": "exclusive"}, "launch.settings"),
        ({"settings": {"cpus_per_task": 2}}, "launch.settings"),
    ],
)
def test_a_wrong_setting_is_refused(values: dict[str, object], where: str) -> None:
    with pytest.raises(UserError) as refused:
        OnSlurm(**values)  # type: ignore[arg-type]
    assert refused.value.where == where


@pytest.mark.parametrize("text", ["5", "90:00", "1:00:00", "0:02:00", "2-0", "2-00:30", "1-23:59:59"])
def test_a_time_as_slurm_reads_it_is_taken(text: str) -> None:
    assert OnSlurm(time=text).time == text


def test_the_script_asks_for_what_the_settings_say_and_holds_no_setting_of_the_command(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    if not asking.shutil.which("srun"):
        pytest.skip("submitit wants srun to be installed")
    place = OnSlurm(
        partition="gpu", nodes=2, gpus=4, cpus=8, memory=1.5, time="2:00:00", grace=50,
        settings={"exclusive": True, "nodelist": "n[1-2]"}, setup=["module load cuda"],
    )  # fmt: skip
    folder = JobFolder(tmp_path / "a b")
    text = batch.script(folder, "/opt/python", place._asked(command()), place._step())
    wanted = {
        "partition=gpu", "nodes=2", "ntasks-per-node=1", "gpus-per-node=4", "cpus-per-task=8", "mem=1536M", "time=2:00:00",
        "exclusive", "'n[1-2]'", "job-name=one", "comment=a1", "signal=USR2@60", "requeue", "export=ALL", "chdir=/",
    }  # fmt: skip
    options = {line.removeprefix("#SBATCH --").removeprefix("nodelist=") for line in text.splitlines() if "#SBATCH" in line}
    assert wanted <= options
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    assert lines[0] == "module load cuda"
    assert lines[1].startswith("/opt/python -m mlops_llm.launch.slurm.node prepare")
    assert lines[3].startswith("srun ")
    assert "--cpus-per-task=8" in lines[3]
    assert "加了" not in text


def test_what_the_environment_says_to_sbatch_counts_only_where_the_settings_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SBATCH_PARTITION", "SBATCH_ACCOUNT", "SBATCH_TIMELIMIT", "SLURM_JOB_ID", "MLFLOW_RUN_ID", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:p@h")
    found = batch._environment(command(tracking="http://h"), "#SBATCH --partition=gpu\n#SBATCH --time=5\n")
    assert {"SBATCH_ACCOUNT", "SLURM_CONF"} <= found.keys()
    assert not {"SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SLURM_JOB_ID", "MLFLOW_RUN_ID"} & found.keys()
    assert found["MLFLOW_TRACKING_URI"] == "http://u:p@h"


@pytest.mark.parametrize(
    ("line", "beaten", "counts"),
    [
        ("mem=64G", ["SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU"], ["SBATCH_GPUS"]),
        ("gpus-per-node=1", ["SBATCH_GPUS_PER_NODE", "SBATCH_GPUS"], ["SBATCH_MEM_PER_NODE"]),
        ("requeue", ["SBATCH_NO_REQUEUE"], ["SBATCH_MEM_PER_NODE"]),
        ("no-requeue", ["SBATCH_REQUEUE"], ["SBATCH_GPUS"]),
    ],
)
def test_variables_of_sbatch_that_are_called_otherwise_do_not_beat_the_settings(
    line: str, beaten: list[str], counts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*beaten, *counts):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h")
    found = batch._environment(command(tracking="http://h"), f"#SBATCH --{line}\n")
    assert not {*beaten} & found.keys()
    assert {*counts} <= found.keys()


def test_a_folder_of_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder, other = batch.found_folder(tmp_path / "jobs", "one"), batch.found_folder(tmp_path / "jobs", "one")
    assert [folder.path.name, other.path.name] == ["one", "one-2"]
    sheet = Sheet(command(), 3, 60.0, "vm/1", "python")
    folder.write(sheet)
    assert folder.sheet() == sheet
    assert folder.progress() == Progress()
    folder.note(Progress(2, 1, "told to stop"))
    assert folder.progress() == Progress(2, 1, "told to stop")


def test_a_database_on_a_networks_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/home {tmp_path} nfs4 rw 0 0\ntmpfs {tmp_path}/own tmpfs rw 0 0\n")
    assert store._file_system(tmp_path / "mlflow.db", mounts) == "nfs4"
    assert store._file_system(tmp_path / "own" / "mlflow.db", mounts) == "tmpfs"
    monkeypatch.setattr(store, "_file_system", lambda file: "nfs4")
    with pytest.raises(UserError, match="is on nfs4, where SQLite breaks"):
        store.check_sharing(f"sqlite:///{tmp_path}/mlflow.db")
    store.check_sharing("http://127.0.0.1:5000")


STOPPED = """
import os, signal, sys, time
from mlops_llm.launch import stopping
stopping.heed()
said = []
try:
    with stopping.saves():
        print("ready", flush=True)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            time.sleep(0.01)
            if stopping.asked() and sys.argv[1] == "saves":
                stopping.saved("saved at step 3")
                stopping.stop()
except stopping.Terminated:
    time.sleep(0.3)  # another signal in these moments is not heeded
    print("stopped")
"""


@pytest.mark.parametrize(
    ("how", "grace", "numbers", "said"),
    [
        ("saves", "10", [signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM], "stopped\n"),
        ("saves", "", [signal.SIGTERM], "stopped\n"),
        ("never", "0.2", [signal.SIGTERM], "stopped\n"),
    ],
    ids=["saves", "no grace", "late"],
)
def test_a_command_stops_once_it_has_saved_and_at_once_where_it_has_no_time(
    how: str, grace: str, numbers: list[int], said: str, tmp_path: Path
) -> None:
    env = {**os.environ, stopping.GRACE: grace, stopping.SAVED: str(tmp_path / "saved")}
    process = subprocess.Popen([sys.executable, "-c", STOPPED, how], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.05)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == (said, 0)
    assert (tmp_path / "saved").exists() == (how == "saves" and bool(grace))


def test_a_signal_that_only_the_jobs_own_process_gets_reaches_the_command(tmp_path: Path) -> None:
    """As with `proctrack/cgroup`, which signals a step's task and nothing beneath it."""
    (tmp_path / "waits.py").write_text(
        "import pathlib, signal, time\n"
        "def heard(number, frame):\n    pathlib.Path('heard').write_text(str(number))\n    raise SystemExit(9)\n"
        "signal.signal(signal.SIGUSR2, heard)\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    )
    folder = JobFolder(tmp_path)
    folder.begin(["waits"], {})
    words = [sys.executable, "-m", "mlops_llm.launch.slurm.node", "run", str(tmp_path)]
    process = subprocess.Popen(words, cwd=tmp_path)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == 9
    assert folder.code.read_text() == "9"
    assert (tmp_path / "heard").read_text() == str(int(signal.SIGUSR2))
