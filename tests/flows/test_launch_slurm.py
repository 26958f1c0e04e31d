"""`launch=slurm` and arrays of jobs on a real SLURM of two nodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.launch import sent
from mlops_llm.launch.__main__ import STAGE as LAUNCH
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.places.slurm import OnSlurm
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.slurm import asking
from mlops_llm.launch.slurm.folder import JobFolder
from tests.commands import SMOKE, start, wait_for, wait_for_step
from tests.forks import Fork
from tests.ports import own_port
from tests.record import checkpoints_of, client, run_of, steps_of
from tests.slurm_cluster import Cluster
from tests.sweeps import held

pytest.importorskip("submitit")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cluster(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, which commands find, and a list of jobs of the test's own."""
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path / "state"))
    return slurm


@pytest.fixture
def run(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """A function that runs a command in this process and returns exit code, output and errors."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def command(stage: Any, *words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = launch(stage, list(words))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return command


def running(folder: Path, name: str, process: Any, other: int = 0) -> int:
    """Wait until a run has a process, other than the one given; return its id."""

    wait_for((folder / "mlflow.db").exists, process)
    store = client(folder)

    found: list[int] = []

    def begun() -> bool:
        everywhere = [each.experiment_id for each in store.search_experiments()]
        for each in store.search_runs(everywhere, f"attributes.run_name = '{name}' and attributes.status = 'RUNNING'"):
            number = int(each.data.tags.get("run.process", "0").partition(":")[0])
            found.extend([number] if number != other and psutil.pid_exists(number) else [])
        return bool(found)

    wait_for(begun, process, seconds=400, every=0.5)
    return found[-1]


def stopped_at(folder: Path, name: str, step: int, process: Any) -> int:
    """Hold the process of a run once it has done a step, so that SLURM has its time; its SIGCONT lets it go on."""
    pid = running(folder, name, process)
    wait_for_step(folder, name, step, process)
    os.kill(pid, signal.SIGSTOP)
    return pid


def finished(process: Any) -> tuple[int, str]:
    """Exit code and all that a command said."""
    out, err = process.communicate(timeout=400)
    return process.returncode, out + err


def test_preempted_killed_cancelled_and_resumed_a_training_has_the_weights_of_one_that_was_not(
    here: Path, trained: Path, cluster: Cluster, run: Callable[..., tuple[int, str, str]]
) -> None:
    asked = ["launch=slurm", "launch.cpus=4", "launch.memory=2", "launch.settings={nodelist:n1}", "launch.grace=20"]
    process: Fork | Any = start(here, *SMOKE, "seed=7", "run_name=far", *asked, env=cluster.environment)
    first = stopped_at(here, "far", 4, process)
    (job,) = sent.jobs()
    urgent = ["--partition=urgent", "--nodelist=n1", "--cpus-per-task=4", "--output=/dev/null"]
    cluster.run("sbatch", *urgent, "--wrap=sleep 1")
    second = running(here, "far", process, first)
    folder = JobFolder(Path(job.handle["folder"]))
    assert list((here / "outputs" / "far").glob("checkpoint-*")) != []
    os.kill(second, signal.SIGKILL)
    third = running(here, "far", process, second)
    assert folder.progress().starts == 3
    code, out, _ = run(LAUNCH, "op=cancel", "op.job=far")
    assert (code, not psutil.pid_exists(third)) == (0, True)
    assert "go on with: python -m mlops_llm.train resume=far" in out
    assert run_of(client(here), "far").info.status == "KILLED"
    assert finished(process)[0] != 0
    code, said = finished(start(here, "resume=far", "launch=slurm", "launch.memory=2", env=cluster.environment))
    assert code == 0, said
    log = folder.log(job.handle["job"]).read_text()
    assert "told to stop; saved at step" in log
    assert "its process was killed; it goes back into the queue" in log
    kept = [json.loads((where / "result.json").read_text()) for where in (here / "outputs/far", trained / "outputs/first")]
    assert kept[0]["digest.weights"] == kept[1]["digest.weights"]
    assert (kept[0]["best"], kept[0]["score"]) == (kept[1]["best"], kept[1]["score"])
    whole = run_of(client(here), "far")
    assert whole.info.status == "FINISHED"
    assert checkpoints_of(client(here), whole).keys() == {"checkpoint-10", "checkpoint-20"}
    assert steps_of(client(here), whole, "eval/loss") == steps_of(
        client(trained), run_of(client(trained), "first"), "eval/loss"
    )
    told = cluster.run("sacct", "-nPD", "-X", "-j", job.handle["job"], "--format=AllocTRES,Comment,State").splitlines()
    assert len(told) == 3
    assert all(line.startswith(f"billing=4,cpu=4,mem=2G,node=1|{whole.info.run_id}|") for line in told)


def test_of_an_array_a_requeued_job_goes_on_and_a_dead_one_is_a_row(here: Path, cluster: Cluster) -> None:
    asked = ["cpus_per_task=1", "mem_gb=2", "timeout_min=10", "signal_delay_s=40"]
    words = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{each}" for each in asked), "samples.count=0"]
    process = start(here, "-m", *SMOKE, "seed=1,2", "run_name=grid", *words, env=cluster.environment)
    jobs = held(here, "grid", 2, process)
    os.kill(jobs[1], signal.SIGKILL)
    arrays = cluster.run("squeue", "--noheader", "--format=%F %K").split("\n")
    array = next(line.split()[0] for line in arrays if line.endswith(" 0"))
    cluster.run("scontrol", "requeue", f"{array}_0")
    code, said = finished(process)
    assert code == 1, said
    runs = [run_of(client(here), f"grid-{number}") for number in (0, 1)]
    assert [each.info.status for each in runs] == ["FINISHED", "KILLED"]
    parent = run_of(client(here), "grid")
    assert {each.data.tags["mlflow.parentRunId"] for each in runs} == {parent.info.run_id}
    assert (parent.info.status, parent.data.tags["best.job"]) == ("FINISHED", "grid-0")
    assert runs[0].data.tags["resumed"] == "true"
    assert "its process" in runs[1].data.tags["run.error"]
    log = "".join(each.read_text() for each in (here / "outputs/grid/.submitit").glob(f"{array}_0/*.out"))
    assert "told to stop: saved at step" in log


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launch.partition=nosuch"], "SLURM does not take the job (invalid partition specified: nosuch; "),
        (["launch.cpus=100"], "(Batch job submission failed: "),
        (["launch.nodes=9"], "(Batch job submission failed: "),
        (["launch.account=nobody"], "Invalid account"),
        (["launch.settings={nonsense:1}"], "nonsense"),
        (["launch.time=soon"], "launch.time: is 'soon'"),
    ],
    ids=["partition", "cores", "nodes", "account", "option", "time"],
)
def test_what_slurm_refuses_is_one_line_and_leaves_nothing(
    here: Path, run: Callable[..., tuple[int, str, str]], words: list[str], said: str
) -> None:
    code, out, err = run(DATA, "op=validate", "dataset=sales_sft", "run_name=no", "launch=slurm", "launch.wait=false", *words)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, len(lines), out) == (2, 1, "")
    assert said in lines[0]
    assert sent.jobs() == []
    assert not list((here / "outputs").glob(".slurm/*"))
    if (here / "mlflow.db").exists():
        store = client(here)
        assert store.search_runs([each.experiment_id for each in store.search_experiments()]) == []


def test_without_slurm_or_its_controller_one_line_says_so(
    here: Path, cluster: Cluster, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["op=validate", "dataset=sales_sft", "launch=slurm"]
    conf = cluster.conf.read_text().replace("MessageTimeout=60", "MessageTimeout=2")
    away = here / "slurm.conf"
    away.write_text("".join(f"SlurmctldPort={own_port()}\n" if "SlurmctldPort" in line else f"{line}\n"
                            for line in conf.splitlines()))  # fmt: skip
    monkeypatch.setenv("SLURM_CONF", str(away))
    code, _, err = run(DATA, *words)
    assert code == 2
    assert "Unable to contact slurm controller" in err
    assert "its controller is away" in err
    monkeypatch.setenv("PATH", "/nowhere")
    for more in (["launch=slurm"], ["-m", "seed=1,2", "hydra/launcher=submitit_slurm"]):
        code, _, err = run(DATA, "op=validate", "dataset=sales_sft", *more)
        assert (code, "SLURM is not installed on this machine (no sbatch)" in err) == (2, True)


def test_accounting_that_is_away_is_no_end_of_a_job(here: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = cluster.conf.read_text().splitlines()
    away = here / "slurm.conf"
    away.write_text("".join(f"AccountingStoragePort={own_port()}\n" if "AccountingStoragePort" in line else f"{line}\n"
                            for line in lines))  # fmt: skip
    monkeypatch.setenv("SLURM_CONF", str(away))
    with pytest.raises(UserError, match="SLURM's accounting does not tell of job 99999"):
        asking.facts_of("99999")


def test_a_job_that_waits_for_ever_says_why_and_one_that_cannot_write_its_files_is_failed(
    here: Path, cluster: Cluster, run: Callable[..., tuple[int, str, str]]
) -> None:
    asked = ["launch=slurm", "launch.wait=false", "launch.settings={hold:true}"]
    for name in ("held", "lost"):
        assert run(DATA, "op=validate", "dataset=sales_sft", f"run_name={name}", *asked)[0] == 0
    _, out, _ = run(LAUNCH, "op=list")
    assert "JobHeldUser, which does not pass" in " ".join(out.split())
    assert run(LAUNCH, "op=cancel", "op.job=held")[0] == 0
    lost = sent.required("lost")
    shutil.rmtree(here / "outputs" / ".slurm")
    cluster.run("scontrol", "release", lost.handle["job"])
    code, _, err = run(LAUNCH, "op=attend", "op.job=lost")
    assert code == 1
    assert "it never began: its node may not see" in " ".join(err.split())
    assert [run_of(client(here), name).info.status for name in ("held", "lost")] == ["KILLED", "FAILED"]


def test_a_run_whose_job_is_refused_on_its_node_is_closed_without_anybody_attending(
    here: Path, cluster: Cluster, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SBATCH_MEM_PER_NODE", "SBATCH_NO_REQUEUE"):
        monkeypatch.setenv(name, "1000")
    rows = here / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    asked = ["launch=slurm", "launch.wait=false", "launch.memory=2", "launch.settings={hold:true}"]
    assert run(DATA, "op=validate", "dataset=rows.jsonl", "kind=sft", "run_name=gone", *asked)[0] == 0
    rows.unlink()
    number = sent.required("gone").handle["job"]
    told = cluster.job(number)
    assert (told["MinMemoryNode"], told["Requeue"]) == ("2G", "1")  # not what the variables say
    cluster.run("scontrol", "release", number)
    until = time.monotonic() + 200
    while run_of(client(here), "gone").info.status == "SCHEDULED" and time.monotonic() < until:
        time.sleep(0.5)
    found = run_of(client(here), "gone")
    assert (found.info.status, "rows.jsonl" in found.data.tags["run.error"]) == ("FAILED", True)


def test_a_python_that_is_not_there_is_named(here: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    words = ["op=validate", "dataset=sales_sft", "run_name=old", "launch=slurm", "launch.python=/nowhere/python"]
    code, _, err = run(DATA, *words)
    assert code == 1
    assert "/nowhere/python: No such file" in err
    found = run_of(client(here), "old")
    assert (found.info.status, "/nowhere/python" in found.data.tags["run.error"]) == ("FAILED", True)


def test_a_command_of_another_stage_runs_too_and_its_no_is_shown_as_here(
    here: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    (here / "bad.jsonl").write_text('{"prompt": "a", "response": ""}\n{"prompt": "a"}\n')
    words = ["op=validate", "dataset=bad.jsonl", "kind=sft"]
    here_code, *_ = run(DATA, *words, "run_name=here")
    code, out, _ = run(DATA, *words, "run_name=there", "launch=slurm")
    assert code == here_code == 1
    assert "errors     2" in out
    tags = [run_of(client(here), name).data.tags for name in ("here", "there")]
    assert tags[0]["result.failed"] == tags[1]["result.failed"] == "true"
    assert run_of(client(here), "there").info.status == run_of(client(here), "here").info.status == "FINISHED"
    number, until = sent.required("there").handle["job"], time.monotonic() + 120
    while not asking.look_of(asking.facts_of(number)).state.ended and time.monotonic() < until:
        time.sleep(0.5)  # its node sees to the run before it ends
    assert asking.facts_of(number)["ExitCode"] == "1:0"


def test_on_each_node_the_command_starts_once_and_a_password_is_in_no_file(
    here: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "http://anna:Canary-7Hq2wz9@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr("mlops_llm.tracking.queued.note", lambda *_: None)
    script = here / "python.sh"
    script.write_text('echo "$3 $SLURM_NODEID $SLURMD_NODENAME $(printf %s "$MLFLOW_TRACKING_URI" | sha256sum)" | cut -c1-30\n')
    place = OnSlurm(nodes=2, python=f"sh {script}", wait=False)
    place.send(Command("train", ("run_name=two",), "two", "a1", "", Again.resume))
    (job,) = sent.jobs()
    files = list(Path(job.handle["folder"]).glob("*"))
    until = time.monotonic() + 60
    while not place.look(job).state.ended and time.monotonic() < until:
        time.sleep(0.2)
    logs = sorted(Path(job.handle["folder"]).glob("*_log.out"))
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    digest = sha256(address.encode()).hexdigest()
    assert sorted(line[1:3] for line in lines if line[0] == "run") == [["0", "n1"], ["1", "n2"]]
    assert all(digest.startswith(line[3]) and len(line[3]) > 8 for line in lines)
    assert files
    for file in [*here.rglob("*"), *Path(os.environ["MLOPS_LLM_QUEUE"]).rglob("*")]:
        assert not file.is_file() or b"Canary" not in file.read_bytes()


def test_a_job_that_is_not_known_yet_waits() -> None:
    command = Command("train", ("run_name=one",), "one", "a1", "", Again.resume, environment={}, tracking="")
    assert OnSlurm().look(Sent(command, "slurm", {}, {}, 1.0)).note == "is being handed over"
