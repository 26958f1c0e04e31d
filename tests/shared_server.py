"""The server of projects/server, started for tests as its README says, on free ports of loopback and in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.commands import environment
from tests.ports import own_port
from tests.processes import told

CODE = Path(__file__).parents[1] / "projects" / "server"
MISSING = [name for name in ("psycopg2", "boto3", "flask_wtf") if importlib.util.find_spec(name) is None]
MISSING += [] if Path(sys.executable).with_name("weed").exists() or shutil.which("weed") else ["weed"]
MISSING += [] if shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres")) else ["PostgreSQL"]
needs = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


class SharedServer:
    """A server, which may be killed and started again."""

    def __init__(self, *words: str) -> None:
        """Choose port and folder; PostgreSQL's account must be able to enter it, which pytest's own folders do not allow."""
        self.words, self.port = words, own_port()
        self.folder = Path(tempfile.mkdtemp(prefix="mlops_llm_server."))
        self.folder.chmod(0o711)
        self.kept = self.folder / "kept"
        self._process: subprocess.Popen[str] | None = None
        self._database: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        words = ["--folder", str(self.kept), "--port", str(self.port), "--workers", "1", *self.words]
        self._process = subprocess.Popen(
            [sys.executable, str(CODE / "serve.py"), *words],
            env=environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if line.startswith("user admin"):
                return
        pytest.fail("".join(said))

    @property
    def processes(self) -> list[psutil.Process]:
        """All of it, the one that started the others first."""
        assert self._process is not None
        top = psutil.Process(self._process.pid)
        return [top, *top.children(recursive=True)]

    def part(self, name: str) -> psutil.Process:
        """The process of a part: `postgres`, `weed`."""
        return next(each for each in self.processes if told(each.name) == name)

    def kill(self) -> None:
        """Kill every process of it at one moment."""
        there = self.processes
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none sees another one go
            for each in there:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)
        assert self._process is not None
        self._process.wait()
        psutil.wait_procs(there, timeout=10)

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """Stop PostgreSQL within the block and start it after it, while MLflow runs on; `whole_again` is to follow."""
        top, database = self.processes[0], self.part("postgres")
        while database.parent() not in (None, top) and database.parent().name() == "postgres":
            database = database.parent()
        words, who, where = database.cmdline(), database.uids().real, database.gids().real
        top.send_signal(signal.SIGSTOP)  # it would end all with one part
        database.send_signal(signal.SIGINT)
        until = time.monotonic() + 60
        while database.is_running() and database.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.1)
        yield
        extra = {"user": who, "group": where, "extra_groups": []} if os.geteuid() == 0 else {}
        self._database = subprocess.Popen(words, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **extra)

    def whole_again(self) -> None:
        """After `without_database`: end what it started, and start all anew."""
        self.kill()
        if self._database is not None:
            self._database.send_signal(signal.SIGINT)
            self._database.wait(60)
            self._database = None
        self.start()

    def end(self) -> str:
        """End it as Ctrl-C does; return what it said then."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        out, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, out
        return out

    def close(self) -> None:
        """Leave nothing of it."""
        if self._process is not None and self._process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.kill()
        if self._database is not None:
            self._database.kill()
            self._database.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def variables(self, name: str = "admin") -> dict[str, str]:
        """What a client sets: those of `NAME.env`."""
        lines = (self.kept / f"{name}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def users(self, *words: str, name: str = "admin") -> str:
        """Run `users.py`, as the administrator or another; return what it said."""
        done = subprocess.run(
            [sys.executable, str(CODE / "users.py"), *words],
            env=environment(self.variables(name)),
            cwd=self.kept,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def wait_for_health(self, seconds: float = 60) -> None:
        """Wait until it answers."""
        from urllib.request import urlopen

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                return
            time.sleep(0.2)
        pytest.fail("the server does not answer")


def python(code: str, env: dict[str, str], *words: str) -> str:
    """What a Python of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
