"""Tracking servers: reachable, remote, dying and coming back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.models.ref import resolve
from mlops_llm.tracking.store import PATIENCE, connect_to
from tests.commands import SMOKE, environment, ok, start, train, wait_for_step
from tests.ports import own_port
from tests.record import artifacts_of, checkpoints_of, run_of, steps_of

Server = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def port() -> int:
    return own_port()


@pytest.fixture
def server(tmp_path: Path, port: int) -> Iterator[Server]:
    """A function that starts a real server on the same database each time, and waits until it answers."""
    home = tmp_path / "server"
    home.mkdir()
    connect_to(f"sqlite:///{home / 'mlflow.db'}")  # sooner than the server would
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", str(home / "artifacts")],
            cwd=home, env=environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        for _ in range(600):
            try:
                if urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                    return process
            except OSError:
                time.sleep(0.2)
        pytest.fail("mlflow server did not start")

    yield begin
    for process in started:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and its workers at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_remote_store_gets_references_or_uploads(
    tmp_path: Path, server: Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server()
    address = f"http://127.0.0.1:{port}"
    env = {"MLFLOW_TRACKING_URI": address}
    ok(train(tmp_path, *SMOKE, "run_name=by-reference", env=env))
    said = ok(train(tmp_path, *SMOKE, "checkpoints.storage=upload", "run_name=uploaded", env=env))
    assert f"{address}/#/experiments/" in said and not (tmp_path / "mlflow.db").exists()
    store = MlflowClient(address)
    assert "plots/loss.png" in artifacts_of(store, run_of(store, "uploaded"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for name, storage in (("by-reference", "reference"), ("uploaded", "upload")):
        models = checkpoints_of(store, run_of(store, name))
        assert {model.tags["checkpoint.storage"] for model in models.values()} == {storage}
        place = resolve(f"runs:/{name}/checkpoint-20").folder
        assert digest.weights(place) == models["checkpoint-20"].tags["digest.weights"]
        assert (place == tmp_path / "outputs" / name / "checkpoint-20") == (storage == "reference")
    assert "optimizer.pt" not in {file.name for file in resolve("runs:/uploaded/last").folder.iterdir()}
    assert store.get_model_version_by_alias("sales", "challenger").run_id == run_of(store, "uploaded").info.run_id


def test_training_goes_on_without_the_server_and_nothing_is_lost_or_doubled(tmp_path: Path, server: Server, port: int) -> None:
    first = server()
    env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    words = [*SMOKE[:1], "trainer.max_steps=100", "trainer.save_steps=25", "trainer.eval_steps=25", "trainer.logging_steps=1",
             "samples.count=0", "run_name=spooled"]  # fmt: skip
    process = start(tmp_path, *words, env=env)
    wait_for_step(tmp_path, "spooled", 30, process)
    stop(first)
    wait_for_step(tmp_path, "spooled", 55, process)
    assert list((tmp_path / "outputs/.spool").glob("*.jsonl"))
    process.send_signal(signal.SIGSTOP)  # training waits here for the server's slow start, not the other way round
    server()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    _check_whole(MlflowClient(env["MLFLOW_TRACKING_URI"]), tmp_path)
    assert not list((tmp_path / "outputs/.spool").glob("*.jsonl"))


def test_the_next_start_delivers_what_a_dead_server_missed(tmp_path: Path, server: Server, port: int) -> None:
    first = server()
    env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    words = [*SMOKE[:1], "trainer.max_steps=100", "trainer.save_steps=25", "trainer.eval_steps=25", "trainer.logging_steps=1",
             "samples.count=0", "run_name=spooled"]  # fmt: skip
    process = start(tmp_path, *words, env=env)
    wait_for_step(tmp_path, "spooled", 30, process)
    stop(first)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "waits on disk" in err, out + err
    server()
    ok(train(tmp_path, *SMOKE, "run_name=next", "register_as=null", env=env))
    _check_whole(MlflowClient(env["MLFLOW_TRACKING_URI"]), tmp_path)


def _check_whole(store: MlflowClient, folder: Path) -> None:
    run = run_of(store, "spooled")
    assert run.info.status == "FINISHED"
    assert steps_of(store, run, "train/loss") == list(range(1, 101))
    assert steps_of(store, run, "eval/loss") == list(range(0, 101, 25))
    models = checkpoints_of(store, run)
    assert set(models) == {f"checkpoint-{step}" for step in (25, 50, 75, 100)}
    assert all(str(model.status) == "READY" and model.metrics for model in models.values())
    assert {"result.json", "plots/loss.png", "train.log"} <= artifacts_of(store, run)
    assert run.data.tags["best.checkpoint"] in models
    assert store.get_model_version_by_alias("sales", "challenger").run_id == run.info.run_id
    result = json.loads((folder / "outputs/spooled/result.json").read_text())
    assert models["checkpoint-100"].tags["digest.weights"] == result["digest.weights"]


def test_an_unreachable_server_is_one_line(tmp_path: Path, port: int) -> None:
    done = train(tmp_path, *SMOKE, env={"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})
    assert done.returncode == 2 and "the tracking server does not answer" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "outputs").exists()


def test_eight_processes_create_one_database(tmp_path: Path) -> None:
    code = "from mlops_llm.tracking.store import connect; connect().experiment('sales')"
    (tmp_path / "first.py").write_text(code, "utf-8")
    processes = [start(tmp_path, module="first", env={"MLOPS_LLM_MIGRATE": "1"}) for _ in range(8)]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, errors
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {each.name for each in store.search_experiments()} == {"Default", "sales"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mlflow")]


class Refusing(BaseHTTPRequestHandler):
    """Answers everything with one status."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[int]:
    """A port that talks, but not HTTP."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def talk() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listening.accept()
                    caller.sendall(b"SSH-2.0-OpenSSH_9\r\n")
                    caller.close()

        threading.Thread(target=talk, daemon=True).start()
        yield int(listening.getsockname()[1])


@pytest.fixture
def refusing() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield answering.server_address[1]
        answering.shutdown()


def test_addresses_that_keep_no_record_are_one_line(tmp_path: Path, silent: int, refusing: int) -> None:
    for address, said in (
        ("http://127.0.0.1:abc", "does not answer"),
        (f"http://127.0.0.1:{silent}", "does not answer"),
        (f"http://user:hunter22@127.0.0.1:{refusing}", "the tracking server answers with errors (501)"),
        ("sqlite://", "keeps the record in memory"),
        ("sqlite:////dev/null/x.db", "/dev/null"),
        ("ftp://x", "is no address for a record"),
    ):
        done = train(tmp_path, *SMOKE, env={"MLFLOW_TRACKING_URI": address})
        (line,) = done.stderr.strip().splitlines()
        assert done.returncode == 2 and said in line and "unexpected" not in line and "hunter22" not in line, done.stderr
    assert not list(tmp_path.glob("*"))


class Leaving(Refusing):
    """Is well, and hangs up on all that is asked first."""

    status = 200
    left = 4

    def do_POST(self) -> None:
        if type(self).left:
            type(self).left -= 1
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")


def test_a_server_that_leaves_while_a_command_starts_is_waited_for_if_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Leaving) as leaving:
        threading.Thread(target=leaving.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{leaving.server_address[1]}"
        with pytest.raises(UserError, match=r"the tracking server does not answer \(.*\); start it or change"):
            connect_to(address)
        assert 0 < Leaving.left < 4
        monkeypatch.setenv(PATIENCE, "20")
        assert connect_to(address).is_server and not Leaving.left
        leaving.shutdown()
