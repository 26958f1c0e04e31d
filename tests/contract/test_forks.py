"""A command that is a fork does what a process of its own does."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.tracking.store import connect_to
from tests import forks
from tests.commands import SMOKE, environment, ok, start, train, wait_for_step
from tests.forks import Fork
from tests.haste import hasten

PROBE = """
import atexit, json, multiprocessing, os, random, signal, sys, threading, time

def double(number):
    return 2 * number

def facts():
    import numpy, torch
    return {
        "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "cwd": os.getcwd(), "environment": dict(os.environ),
        "name": [__name__, __spec__.name, __file__], "main": sys.modules["__main__"].double is double,
        "streams": [
            [each.encoding, each.errors, each.line_buffering, each.fileno()] for each in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "handlers": [str(signal.getsignal(each)).partition(" at ")[0] for each in signal.valid_signals()],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "group": os.getpgrp(),
        "files": sorted(int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")),
        "threads": len(os.listdir("/proc/self/task")), "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
        "torch": torch.get_num_threads(),
        "drawn": [random.random(), numpy.random.rand(), torch.initial_seed(), random.randbytes(8).hex(), float(torch.rand(1))],
    }

if __name__ == "__main__":
    what = sys.argv[1]
    atexit.register(print, "at exit")
    if what == "facts":
        print(json.dumps(facts()))
    elif what == "spawns":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(double, [1, 2]))
    elif what == "thread":
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    elif what == "exit":
        sys.exit(3)
    elif what == "says":
        sys.exit("no")
    elif what == "raises":
        raise ValueError("wrong")
    elif what == "interrupted":
        raise KeyboardInterrupt
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "os exit":
        print("lost")
        os._exit(5)
    elif what == "sleeps":
        print("asleep", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    """A folder with a module that tells of itself."""
    (tmp_path / "probe.py").write_text(PROBE, "utf-8")
    return tmp_path


def fork(folder: Path, *words: str) -> Fork:
    """Run the module in a fork."""
    found = forks.start("probe", words, folder, environment(), usual=environment())
    if found is None:
        pytest.skip("commands are not forks here")
    return found


def both(folder: Path, *words: str) -> list[tuple[int, str, str]]:
    """How it ends in a process of its own and in a fork, and what it says."""
    command = [sys.executable, "-m", "probe", *words]
    alone = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    forked = fork(folder, *words)
    out, err = forked.communicate(timeout=60)
    assert forked.args == command
    return [(alone.returncode, alone.stdout, alone.stderr), (forked.returncode or 0, out, err)]


def test_it_finds_what_a_process_of_its_own_finds(probe: Path) -> None:
    alone, forked = (json.loads(out.splitlines()[0]) for _, out, _ in both(probe, "facts", "a b", "数"))
    drawn = [each.pop("drawn") for each in (alone, forked, json.loads(fork(probe, "facts").communicate()[0].splitlines()[0]))]
    assert len({number for each in drawn for number in each}) == 15
    variables: list[dict[str, str]] = [each.pop("environment") for each in (alone, forked)]
    assert {**variables[1], **variables[0]} == variables[1]
    assert alone["files"] == forked["files"] == [0, 1, 2]
    assert alone == forked


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("spawns", 0, "[2, 4]\nat exit\n"),
        ("thread", 0, "thread\nat exit\n"),
        ("exit", 3, "at exit\n"),
        ("says", 1, "at exit\n"),
        ("raises", 1, "at exit\n"),
        ("interrupted", -signal.SIGINT, "at exit\n"),
        ("killed", -signal.SIGKILL, ""),
        ("os exit", 5, ""),
    ],
)
def test_it_ends_as_a_process_of_its_own_ends(probe: Path, what: str, code: int, said: str) -> None:
    alone, forked = both(probe, what)
    assert alone[:2] == forked[:2] and alone[0] == code and said in alone[1]
    assert alone[2].splitlines()[-1:] == forked[2].splitlines()[-1:]


def test_it_is_waited_for_and_stopped_as_any_process(probe: Path) -> None:
    sleeper, other = fork(probe, "sleeps"), fork(probe, "sleeps")
    assert sleeper.stdout.readline() == "asleep\n" and sleeper.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.communicate(0.01)
    assert Path(f"/proc/{sleeper.pid}/cwd").resolve() == probe
    sleeper.terminate()
    assert sleeper.communicate(timeout=30) == ("", "") and sleeper.returncode == sleeper.poll() == -signal.SIGTERM
    sleeper.kill()  # it is gone: nothing is sent
    other.stdout.readline()
    other.send_signal(signal.SIGINT)
    assert other.communicate(timeout=30)[0] == "at exit\n" and other.wait() == -signal.SIGINT


def test_another_environment_is_for_a_process_of_its_own(tmp_path: Path) -> None:
    def forked(**env: str) -> bool:
        process = start(tmp_path, "--cfg", "job", env=env)
        process.kill()
        process.communicate()
        return isinstance(process, Fork)

    if not forked():
        pytest.skip("commands are not forks here")
    assert forked(MLFLOW_TRACKING_URI="sqlite:///x.db", MLOPS_LLM_QUEUE="q", MLFLOW_RUN_ID="1")
    for name in ("OMP_NUM_THREADS", "PYTHONPATH", "HF_HOME", "PYTHONHASHSEED"):
        with pytest.warns(UserWarning, match=f"no fork because of: {name}"):
            assert not forked(**{name: "7"})


def test_the_forks_end_with_the_test_process(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.commands import environment
from tests.forks import Zygote
import os, signal
zygote = Zygote(environment(), ())
print(zygote.fork("platform", (), Path("{tmp_path}"), environment()).communicate()[0].strip(), zygote.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=forks.ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and done.stdout.startswith("Linux"), done.stderr
    pid, until = int(done.stdout.split()[-1]), time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_forked_training_is_the_training_of_a_process_of_its_own(tmp_path: Path) -> None:
    def trained(name: str, *, fresh: bool) -> tuple[Any, list[float], str]:
        (folder := tmp_path / name).mkdir()
        done = train(folder, *SMOKE, "trainer.max_steps=10", "trainer.logging_steps=1", "run_name=one", fresh=fresh)
        ok(done)
        result = json.loads((folder / "outputs/one/result.json").read_text("utf-8"))
        steps = (folder / "outputs/one/steps.jsonl").read_text("utf-8").splitlines()
        return result["digest.weights"], [json.loads(line)["loss"] for line in steps], done.stderr.replace(str(folder), "")

    assert trained("alone", fresh=True) == trained("forked", fresh=False)


def test_a_forked_training_ends_with_the_codes_of_a_process_of_its_own(tmp_path: Path) -> None:
    wrong = [train(tmp_path, *SMOKE, "trainer.max_steps=0", fresh=fresh) for fresh in (True, False)]
    assert wrong[0].returncode == wrong[1].returncode == 2 and wrong[0].stderr == wrong[1].stderr
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(tmp_path, *SMOKE, "trainer.max_steps=4000", f"run_name={code}")
        wait_for_step(tmp_path, str(code), 2, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in err


def test_a_copied_record_is_what_mlflow_makes(tmp_path: Path) -> None:
    def shape(file: Path) -> dict[str, Any]:
        with closing(sqlite3.connect(file)) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")]
            found = {name: database.execute(f"PRAGMA table_info({name})").fetchall() for name in sorted(names)}
            return found | {"version": database.execute("SELECT * FROM alembic_version").fetchall()}

    code = "from mlops_llm.tracking.store import connect; connect()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=True)
    (tmp_path / "mlflow.db").rename(tmp_path / "own.db")
    hasten()
    connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert shape(tmp_path / "own.db") == shape(tmp_path / "mlflow.db")
