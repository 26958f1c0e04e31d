"""Commands on another machine over ssh: a real sshd on loopback, with the connection cut and processes killed in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlops_llm import digest
from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.jobs import State
from mlops_llm.launch.ssh import start as remote
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.models.ref import resolve
from mlops_llm.ports import is_free
from tests.chat_server import serve as judge
from tests.commands import SMOKE, ok, start, train, wait_for, wait_for_step
from tests.far import HOST, Machine
from tests.ports import own_port
from tests.processes import held_once
from tests.record import artifacts_of, checkpoints_of, client, run_of
from tests.security import canaries

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Another machine that runs."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    made.start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder here in which commands are typed, with a record of its own."""
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(autouse=True)
def _state(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known here of jobs elsewhere."""
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(desk / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def work_of(machine: Machine, desk: Path, run: str) -> Path:
    """Folder there in which a run's command runs."""
    return machine.jobs() / run_of(client(desk), run).info.run_id / "work"


def asked(desk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `launch`."""
    process = start(desk, *words, stage="launch")
    out, err = process.communicate(timeout=400)
    return subprocess.CompletedProcess(process.args, process.returncode or 0, out, err)


@pytest.fixture(scope="module")
def far(machine: Machine, desk: Path) -> Path:
    """A folder whose run `far` was trained there, with the connection cut and the command here killed when half was done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_LLM_QUEUE", str(desk / "state"))
        process = start(desk, *SMOKE, "run_name=far", "seed=7", *machine.words("launch.checkpoints=all"))
        wait_for(lambda: any(machine.jobs().glob("*/work")), process)
        there = next(machine.jobs().glob("*/work"))
        wait_for_step(there, "far", 10, process)
        refuses_strangers(desk)
        machine.cut()
        process.kill()
        process.communicate()
        until = time.monotonic() + 120
        while not (there.parent / "job" / "rc").exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert (there.parent / "job" / "rc").read_text() == "0\n", (there.parent / "job" / "log").read_text()
        assert run_of(client(desk), "far").info.status == "RUNNING" and any((there / "outputs/.spool").glob("*.jsonl"))
        machine.start()
        done = asked(desk, "op=attend", "op.job=far")
        assert "far: trained" in ok(done) and "brought far: outputs/far" in done.stdout
    return desk


def refuses_strangers(desk: Path) -> None:
    """The way to the record, while it stands, answers nobody who does not show the run's certificate."""
    (job,) = (desk / "state/sent").glob("*.json")
    port = json.loads(job.read_text())["handle"]["port"]
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError):  # what the system calls it differs
        urllib.request.urlopen(f"https://127.0.0.1:{port}/api/2.0/mlflow/experiments/search", context=blind, timeout=10)


def test_a_training_there_gives_the_weights_that_it_gives_here(far: Path, trained: Path) -> None:
    there, here = (
        checkpoints_of(client(each), run_of(client(each), name)) for each, name in ((far, "far"), (trained, "first"))
    )
    assert {name: row.tags["digest.weights"] for name, row in there.items()} == {
        name: row.tags["digest.weights"] for name, row in here.items()
    }
    for name, row in there.items():
        assert digest.weights(far / "outputs/far" / name) == row.tags["digest.weights"]


def test_the_record_is_as_that_of_a_training_here(far: Path, trained: Path) -> None:
    def told(folder: Path, name: str) -> tuple[Any, ...]:
        store = client(folder)
        run = run_of(store, name)
        curve = [(each.step, each.value) for each in store.get_metric_history(run.info.run_id, "train/loss")]
        return curve, artifacts_of(store, run), run.info.status, run.data.tags["git.commit"], sorted(run.data.params)

    assert told(far, "far") == told(trained, "first")
    run = run_of(client(far), "far")
    assert Path(run.data.tags["output"]) == far / "outputs/far" and Path(run.data.tags["folder"]) == far
    away = [key for key, value in run.data.tags.items() if "far-home" in value]
    assert not away, away
    assert "far-home" not in (far / "outputs/far/result.json").read_text()


def test_its_checkpoints_lie_here_and_share_their_disk_with_the_record(far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = checkpoints_of(client(far), run_of(client(far), "far"))
    assert set(rows) == {"checkpoint-10", "checkpoint-20"}
    for name, row in rows.items():
        assert row.tags["checkpoint.storage"] == "hardlink" and "checkpoint.host" not in row.tags
        kept = Path(row.artifact_location.removeprefix("file://")) / "model.safetensors"
        assert kept.samefile(far / "outputs/far" / name / "model.safetensors")
    monkeypatch.chdir(far)
    assert resolve("runs:/far/best").folder.is_dir()


def test_nobody_else_there_can_read_it(far: Path, machine: Machine) -> None:
    root = machine.home / "mlops_llm"
    assert root.stat().st_mode & 0o077 == 0
    keys = list(root.glob("jobs/*/job/record.pem"))
    assert keys and all(each.stat().st_mode & 0o077 == 0 for each in keys)


def test_what_is_there_is_not_sent_again_and_a_failure_there_is_one_here(far: Path, machine: Machine, tmp_path: Path) -> None:
    rows = tmp_path / "数据 rows.jsonl"
    rows.write_text("".join(json.dumps({"q": f"q{n}", "a": f"a{n}"}) + "\n" for n in range(3)), "utf-8")
    words = (f"dataset={rows}", *machine.words())
    code, out = data(far, "op=stats", *words, "run_name=rows-1")
    assert "sent 数据 rows.jsonl" in out and "sent code" not in out  # the training has sent that
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert code == 2 and "what the rows are for cannot be told" in line
    run = run_of(client(far), "rows-1")
    assert run.info.status == "FAILED" and run.data.tags["run.error"][:100] == line.removeprefix("error: ")[:100]
    kept = {each: each.stat().st_ino for each in (machine.home / "mlops_llm/files").rglob("*")}
    code, out = data(far, "op=validate", *words, "run_name=rows-2")
    assert "sent " not in out.partition("sent to gpu1")[0] and "errors     3" in out, out
    assert code == 1 and run_of(client(far), "rows-2").info.status == "FINISHED"  # it was done, and says no
    assert {each: each.stat().st_ino for each in (machine.home / "mlops_llm/files").rglob("*")} == kept
    assert json.loads((far / "outputs/rows-2/result.json").read_text())["errors"] == 3


def data(folder: Path, *words: str) -> tuple[int | None, str]:
    """Run a command of `data`; return its exit code and what it prints."""
    process = start(folder, *words, stage="data")
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out


def test_a_key_that_is_named_goes_along_and_is_in_no_file_and_no_command_line(
    machine: Machine, desk: Path, tmp_path: Path
) -> None:
    secrets = canaries.environment()
    words = ["model=tiny", "dataset=sales_eval", "limit=2", "sampling.max_new_tokens=4", "judge=rubric_zh", "judge.model=m"]
    with judge() as rater:
        words += [f"judge.base_url={rater.address}", "judge.api_key_env=JUDGE_KEY", "run_name=judged", *machine.words()]
        done_unseen(secrets, tmp_path, "eval", *words)
    assert rater.keys == {f"Bearer {secrets['JUDGE_KEY']}"}  # it was there
    assert (tmp_path / "outputs/judged/result.json").is_file()
    no_file_holds(secrets, tmp_path, machine.folder, desk)


def done_unseen(secrets: Mapping[str, str], folder: Path, stage: str, *words: str) -> None:
    """Run a command that has secrets in its environment; none is on a command line or in what it says."""
    with canaries.Watch(secrets) as watch:
        process = start(folder, *words, env=secrets, stage=stage, fresh=True)
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    assert watch.rounds > 20 and not watch.seen, watch.seen
    assert not [*canaries.found_in((out + err).encode(), secrets)], out + err


def no_file_holds(secrets: Mapping[str, str], *roots: Path) -> None:
    there = [each for root in roots for each in root.rglob("*") if each.is_file()]
    # To read SQLite's index of its log gives up this process's lock on it, and who opens the record next would cut it short.
    files = [each for each in there if not each.name.endswith("-shm")]
    leaks = {str(each): found for each in files if (found := [*canaries.found_in(each.read_bytes(), secrets)])}
    assert len(files) > 50 and not leaks, leaks


class Embeddings(BaseHTTPRequestHandler):
    """Answers with a vector of two numbers for each text."""

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.add(self.headers["authorization"])  # type: ignore[attr-defined]
        data = [{"index": place, "embedding": [len(text), 1.0]} for place, text in enumerate(asked["input"])]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": data}).encode())


@pytest.fixture
def embeddings() -> Iterator[ThreadingHTTPServer]:
    """A server of embeddings, with the keys that it was shown."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Embeddings)
    made.keys = set()  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


FLOW = """
stages:
  first: {command: data op=stats dataset=own op.near=false}
  near:
    command: data op=dedup_semantic dataset=own op.embedder=m op.threshold=0.9 op.api_key_env=JUDGE_KEY op.base_url=URL
    needs: [first]
"""


def test_a_pipeline_there_has_the_keys_that_its_stages_name_and_its_runs_are_as_here(
    machine: Machine, embeddings: Any, desk: Path, tmp_path: Path
) -> None:
    secrets = canaries.environment()
    rows = "".join(json.dumps({"prompt": f"问题 {each}", "response": "回答" * each}) + "\n" for each in range(1, 6))
    flow = FLOW.replace("URL", f"http://127.0.0.1:{embeddings.server_port}/v1")
    for name, text in (("conf/experiment/keys.yaml", flow), ("datasets/own.jsonl", rows)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text, "utf-8")
    done_unseen(secrets, tmp_path, "pipeline", "+experiment=keys", "run_name=both", *machine.words())
    assert embeddings.keys == {f"Bearer {secrets['JUDGE_KEY']}"}  # it was there
    store = client(tmp_path)
    runs = {name: run_of(store, name) for name in ("both", "both-first", "both-near")}
    assert {each.info.status for each in runs.values()} == {"FINISHED"}
    whole = runs.pop("both")
    assert {each.data.tags["mlflow.parentRunId"] for each in runs.values()} == {whole.info.run_id}
    for each in (whole, *runs.values()):
        folder = Path(each.data.tags["output"])
        assert folder.is_relative_to(tmp_path / "outputs") and (folder / "result.json").is_file(), folder
    no_file_holds(secrets, tmp_path, machine.folder, desk)


def test_a_cancelled_training_goes_on_there_to_the_same_weights(machine: Machine, far: Path, trained: Path) -> None:
    desk = far
    process = start(desk, *SMOKE, "run_name=half", "seed=7", *machine.words("launch.checkpoints=all"))
    wait_for(lambda: bool(client(desk).search_runs(["1"], "attributes.run_name = 'half'")), process, every=0.5)
    there = work_of(machine, desk, "half")
    wait_for_step(there, "half", 8, process)
    group = int((there.parent / "job/pid").read_text().split()[0])
    saved = there / "outputs/half/checkpoint-10/.complete.json"
    held_once(saved.exists, lambda number: os.killpg(group, number))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "op=attend op.job=half" in err
    waking = threading.Thread(target=_continue_when_terminated, args=(group,), daemon=True)
    waking.start()
    assert "half is cancelled" in ok(asked(desk, "op=cancel", "op.job=half"))
    run = run_of(client(desk), "half")
    assert run.info.status == "KILLED" and (desk / "outputs/half/checkpoint-10/optimizer.pt").is_file()
    ok(train(desk, "resume=half", *machine.words("launch.checkpoints=all")))
    run, first = run_of(client(desk), "half"), run_of(client(trained), "first")
    assert run.info.status == "FINISHED" and run.data.tags["digest.weights"] == first.data.tags["digest.weights"]
    assert Path(run.data.tags["output"]) == desk / "outputs/half"


def _continue_when_terminated(group: int) -> None:
    """Let stopped processes go on once SIGTERM waits for them."""
    asked_for = 1 << (signal.SIGTERM - 1)
    for _ in range(3000):
        said = Path(f"/proc/{group}/status").read_text()
        pending = [int(line.split()[1], 16) for line in said.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
        if any(each & asked_for for each in pending):
            break
        time.sleep(0.02)
    os.killpg(group, signal.SIGCONT)


@pytest.fixture
def refused(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that sends a command which is refused, and returns the one line that says why; no run is left."""
    monkeypatch.chdir(desk)

    def send(machine: Machine, *words: str) -> str:
        capfd.readouterr()
        code = launch(DATA, ["op=stats", "dataset=sales_sft", "run_name=refused", *machine.words(*words)])
        _, err = capfd.readouterr()
        assert code == 2 and "Traceback" not in err, err
        assert not client(desk).search_runs(
            [each.experiment_id for each in client(desk).search_experiments()], "attributes.run_name = 'refused'"
        )
        assert not [job for job in machine.jobs().glob("*") if not (job / "job/log").exists()]  # nothing of it is left there
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return line

    return send


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"Port": "1"}, "cannot be reached"),
        ({"HostName": "nowhere.invalid"}, "no machine has this name|cannot be reached"),
        ({"UserKnownHostsFile": "/dev/null"}, "its host key is not known here; accept it once: ssh gpu1"),
        ({"IdentityFile": "{folder}/stranger"}, "it refuses the key"),
        ({"Nonsense": "1"}, "ssh cannot read its configuration"),
    ],
)
def test_a_machine_that_cannot_be_entered(
    machine: Machine, refused: Callable[..., str], setting: dict[str, str], said: str
) -> None:
    machine.write_config(**{key: value.format(folder=machine.folder) for key, value in setting.items()})
    Connection(HOST, str(machine.config)).hang_up()
    try:
        line = refused(machine)
    finally:
        machine.write_config()
    assert any(each in line for each in said.split("|")), line


def test_a_host_key_that_has_changed(machine: Machine, refused: Callable[..., str]) -> None:
    known = machine.folder / "known"
    before = known.read_text()
    known.write_text(f"{before.split()[0]} {' '.join((machine.folder / 'stranger.pub').read_text().split()[:2])}\n")
    Connection(HOST, str(machine.config)).hang_up()
    try:
        assert "its host key is another than the one known here" in refused(machine)
    finally:
        known.write_text(before)


def test_a_machine_that_does_not_forward_ports(machine: Machine, refused: Callable[..., str]) -> None:
    keys = machine.folder / "authorized"
    before = keys.read_text()
    keys.write_text(f"restrict {before}")
    try:
        assert "it does not forward ports to here" in refused(machine)
    finally:
        keys.write_text(before)


TOOLS = (
    "sh bash env mkdir chmod touch uname date df awk cat head tail sed cut mv rm ln ps sleep setsid nohup grep rsync python3"
)


def tools(folder: Path, without: str = "", **scripts: str) -> str:
    """A PATH with what a machine has, and with scripts that stand for some of it."""
    folder.mkdir()
    for name in TOOLS.split():
        found = shutil.which(name)
        if found and name != without and name not in scripts:
            (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return f"export PATH={folder}\n"


def test_a_machine_without_rsync(machine: Machine, refused: Callable[..., str], tmp_path: Path) -> None:
    with machine.having(tools(tmp_path / "bin", without="rsync")):
        assert "rsync is not installed there" in refused(machine)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 3.8.10", "is Python 3.8.10, and >=3.11 is needed"),
        (f'exec {sys.executable} -S "$@"', "are missing; ssh gpu1"),
    ],
)
def test_another_python_there(machine: Machine, refused: Callable[..., str], tmp_path: Path, script: str, said: str) -> None:
    tools(tmp_path / "bin", other=script)
    assert said in refused(machine, f"launch.python={tmp_path}/bin/other")


def test_no_python_there(machine: Machine, refused: Callable[..., str]) -> None:
    assert "there is no python4" in refused(machine, "launch.python=python4")


def test_a_folder_that_cannot_be_written(machine: Machine, refused: Callable[..., str]) -> None:
    assert "the folder cannot be written" in refused(machine, "launch.folder=/proc/mlops_llm")


def test_no_space_there(machine: Machine, refused: Callable[..., str], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        assert "MB are needed" in refused(machine, f"launch.folder={small}/x")
        with machine.having(tools(tmp_path / "bin", df="echo; echo x x x 99999999 x x")):  # it lies
            assert "has no space left" in refused(machine, f"launch.folder={small}/y")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_transfer_that_was_cut_off_goes_on(machine: Machine, tmp_path: Path) -> None:
    to, much = Connection(HOST, str(machine.config)), 6_000_000
    (tmp_path / "big").write_bytes(os.urandom(much))
    (tmp_path / "there").mkdir()
    failed: list[Exception] = []

    def send() -> None:
        try:
            to.send(tmp_path / "big", f"{tmp_path}/there/", "--bwlimit=2000")
        except UserError as error:
            failed.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    until = time.monotonic() + 30
    while sum(each.stat().st_size for each in (tmp_path / "there").rglob("*")) < much / 4 and time.monotonic() < until:
        time.sleep(0.05)
    machine.cut()
    sending.join()
    machine.start()
    assert isinstance(failed[0], LostError) and not (tmp_path / "there/big").exists()
    assert to.send(tmp_path / "big", f"{tmp_path}/there/") < much
    assert digest.raw(tmp_path / "there/big") == digest.raw(tmp_path / "big")


def test_nothing_is_sent_without_a_host(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(desk)
    assert launch(DATA, ["op=stats", "dataset=sales_sft", "launch=ssh"]) == 2
    assert "launch.host" in capfd.readouterr().err


class TestProcess:
    """The process there, by itself."""

    @pytest.fixture
    def to(self, machine: Machine) -> Connection:
        return Connection(HOST, str(machine.config))

    @pytest.fixture
    def begun(self, to: Connection, tmp_path: Path) -> Callable[..., str]:
        def begin(*argv: str) -> str:
            work, job = tmp_path / "a b" / "work", tmp_path / "a b" / "job"
            work.mkdir(parents=True)
            job.mkdir()
            remote.start(to, str(job), str(work), argv, {"SAID": 'it\'s "$HOME"'})
            return str(job)

        return begin

    def test_what_it_prints_and_its_exit_code_are_seen(self, to: Connection, begun: Callable[..., str]) -> None:
        job = begun("sh", "-c", 'echo "$SAID"; echo "error: 不行 it is" >&2; sleep 0.2; exit 3')
        assert ended(to, job) == (State.failed, 3, "不行 it is")
        assert remote.output(to, job, 0).decode() == 'it\'s "$HOME"\nerror: 不行 it is\n'
        assert remote.output(to, job, 5).decode().startswith('"$HOME"')

    def test_one_that_is_killed_is_lost_and_one_of_before_a_restart_too(
        self, to: Connection, begun: Callable[..., str]
    ) -> None:
        job = begun("sleep", "100")
        pid = int((Path(job) / "pid").read_text().split()[0])
        assert remote.look(to, job)[:2] == (State.running, None)
        os.killpg(pid, signal.SIGKILL)
        assert ended(to, job) == (State.failed, None, "its process was killed there")
        (Path(job) / "pid").write_text(f"{os.getpid()} 1 another-start\n")
        assert remote.look(to, job) == (State.failed, None, "the machine was started anew while it ran")

    @pytest.mark.parametrize(("words", "code"), [("trap 'exit 143' TERM", 143), ("trap : TERM\nsetsid sleep SECONDS &", None)])
    def test_it_is_asked_to_end_and_then_made_to(
        self, to: Connection, begun: Callable[..., str], tmp_path: Path, words: str, code: int | None
    ) -> None:
        seconds, heeds = f"1000.{os.getpid():07}", tmp_path / "heeds"  # which nobody else sleeps here
        job = begun("sh", "-c", f"{words.replace('SECONDS', seconds)}\ntouch '{heeds}'\nwhile :; do sleep 0.1; done")
        until = time.monotonic() + 60
        while not heeds.exists():
            assert time.monotonic() < until, "it did not begin"
            time.sleep(0.02)
        remote.stop(to, job, 5.0 if code else 0.4)
        assert ended(to, job)[1] == code
        left = subprocess.run(["pgrep", "-f", f"sleep {seconds}"], capture_output=True, check=False).stdout
        assert not left

    def test_a_tunnel_ends_with_who_holds_it_though_it_is_in_use(self, machine: Machine) -> None:
        port = own_port()
        with socket.create_server(("127.0.0.1", 0)) as server:
            record = f"http://127.0.0.1:{server.getsockname()[1]}"
            holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(machine.config), str(port), record])
            server.settimeout(60)
            until = time.monotonic() + 60
            while is_free(port) and time.monotonic() < until:
                time.sleep(0.05)
            with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
                holder.kill()
                holder.wait()
                until = time.monotonic() + 20
                while not is_free(port) and time.monotonic() < until:
                    time.sleep(0.05)
                assert is_free(port)

    def test_a_machine_that_is_away_is_told_as_that(self, tmp_path: Path, machine: Machine) -> None:
        config = tmp_path / "config"
        config.write_text(machine.config.read_text().replace(f"Port {machine.port}", "Port 1"))
        with pytest.raises(LostError, match="cannot be reached"):
            remote.look(Connection(HOST, str(config)), "/nowhere")


_HOLDER = """
import sys, time
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.launch.ssh.route import Route, standing
config, port, record = sys.argv[1:]
with standing(Connection("gpu1", config), Route("tunnel", int(port)), record, "a1"):
    time.sleep(100)
"""


def ended(to: Connection, job: str) -> tuple[State, int | None, str]:
    """How a process has ended."""
    until = time.monotonic() + 20
    while not (found := remote.look(to, job)).state.ended and time.monotonic() < until:
        time.sleep(0.1)
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of its own record on this machine's loopback, which hands artifacts over; its address."""
    port, home = own_port(), tmp_path / "server"
    home.mkdir()
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--serve-artifacts"]
    words += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            break
        except OSError:
            time.sleep(0.2)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("mlflow server did not start")
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_on_this_machine_is_reached_through_it(machine: Machine, server: str, tmp_path: Path) -> None:
    folder = tmp_path / "typed"
    (folder / "in").mkdir(parents=True)
    (folder / "in/rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    process = start(
        folder,
        *("op=validate", "dataset=in/rows.jsonl", "run_name=rows", *machine.words()),
        stage="data",
        env={"MLFLOW_TRACKING_URI": server},
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert f"look at it:  {server}/" in out.partition("brought")[0].rpartition("run rows")[2]
    store = MlflowClient(server)
    run = run_of(store, "rows")
    assert run.info.status == "FINISHED" and "result.json" in artifacts_of(store, run)
    assert Path(run.data.tags["output"]) == folder / "outputs/rows"
    assert "far-home" not in json.dumps(run.data.tags)
