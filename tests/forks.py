"""Commands as forks of a process that has imported the libraries (`tests.zygote`); for a test they are like any process."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tests.zygote import ANSWER, LIBRARIES, PROGRAM, run, serve

ROOT = Path(__file__).parents[1]
FREE = {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "PYTEST_CURRENT_TEST", "PYTHONUNBUFFERED", "SLURM_CONF", "PATH"}
FREE |= {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSFILE"}
"""Variables that no library reads while it is imported; nor does one read those that begin with `MLOPS_LLM_`."""


class Fork:
    """A command that runs; with what tests use of `subprocess.Popen`."""

    def __init__(self, args: list[str], told: int, out: int, err: int) -> None:
        """Take over what a fork writes to.

        Args:
            args: its command line.
            told: where its process id is to be read, and its wait status.
            out: where its output is to be read.
            err: where its errors are to be read.
        """
        self.args = args
        self.stdout: IO[str] = open(out)  # noqa: SIM115
        self.stderr: IO[str] = open(err)  # noqa: SIM115
        self.returncode: int | None = None
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115
        self._read: dict[IO[str], str] = {}
        self._readers: list[threading.Thread] = []
        self.pid = self._answer()

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal's number; None while it runs."""
        if self.returncode is None and self._is_told(0):
            self.returncode = os.waitstatus_to_exitcode(self._answer())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self.returncode is None:
            self._is_told(timeout)
            if self.poll() is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read output and errors to their end, wait for the process's end, and return both.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds; nothing is lost for the next call.
        """
        until = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if until is None else max(0.0, until - time.monotonic())

        def read(stream: IO[str]) -> None:
            with stream:
                self._read[stream] = stream.read()

        if not self._readers:
            self._readers = [threading.Thread(target=read, args=[each], daemon=True) for each in (self.stdout, self.stderr)]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(left())
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(left())
        return self._read[self.stdout], self._read[self.stderr]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _is_told(self, timeout: float | None) -> bool:
        ready = select.poll()  # of any descriptor; `select` takes those below 1024
        ready.register(self._told, select.POLLIN)
        return bool(ready.poll(None if timeout is None else 1000 * timeout))

    def _answer(self) -> int:
        said = self._told.read(ANSWER)
        if not said:
            raise RuntimeError(f"the process that {self.args} was a fork of is gone")
        return int.from_bytes(said, "little")


class Zygote:
    """The process that forks, and the line to it."""

    def __init__(self, environment: Mapping[str, str], libraries: tuple[str, ...] = LIBRARIES) -> None:
        """Start it in this environment, and wait until it has imported the libraries.

        Raises:
            RuntimeError: it cannot import them.
        """
        self._line, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other, tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(other.fileno()), *libraries],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[other.fileno()],
            )
            other.close()
            ready = self._line.recv(1 << 20)
            if not ready:
                process.wait()
                said.seek(0)
                raise RuntimeError(said.read().decode(errors="replace"))
        atexit.register(process.wait)
        atexit.register(self._line.close)  # comes first, and ends the process
        facts = json.loads(ready)
        self.pid, self.threads = process.pid, facts["threads"]
        self._environments = environment, facts["environment"]

    def strange(self, environment: Mapping[str, str]) -> set[str]:
        """Names of variables with which the libraries might have become others when they were imported.

        What they set themselves when they were imported may be there already, or not.
        """
        names = {name for each in (environment, *self._environments) for name in each if not name.startswith("MLOPS_LLM_")}
        there = self._environments
        return {name for name in names - FREE if environment.get(name) not in [each.get(name) for each in there]}

    def fork(self, module: str, words: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> Fork:
        """Let a fork run a module as `python -m` does."""
        request = {"module": module, "words": words, "folder": str(folder), "environment": dict(environment)}
        (out, to_out), (err, to_err), (told, to_told) = (os.pipe() for _ in range(3))
        given = [0, to_out, to_err, to_told]
        socket.send_fds(self._line, [json.dumps(request).encode()], given)
        for each in given[1:]:
            os.close(each)
        return Fork([sys.executable, "-m", module, *words], told, out, err)


_ZYGOTES: dict[int, Zygote] = {}
"""That of this process."""


def inherit() -> None:
    """Let this process, itself a fork, have forks of what it is now, so that none imports the libraries again.

    To be called before anything else, while there is one thread.
    """
    mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        mine.close()
        run(serve(other.detach(), []))
    other.close()
    facts = json.loads(mine.recv(1 << 20))
    found = _ZYGOTES[os.getpid()] = Zygote.__new__(Zygote)
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    found._line, found.threads, found._environments = mine, facts["threads"], (usual, facts["environment"])


def start(
    module: str, words: tuple[str, ...], folder: Path, environment: Mapping[str, str], usual: Mapping[str, str]
) -> Fork | None:
    """Start a module as `python -m` does, in a fork; None where it must be a process of its own.

    Args:
        module: its name.
        words: what follows the name.
        folder: where it runs.
        environment: its environment.
        usual: the environment of most commands, in which the libraries are imported once.
    """
    # A driver of GPUs that was looked at before a fork does not work in it.
    gpu = any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg", "kfd"))
    if sys.platform != "linux" or gpu or os.environ.get("MLOPS_LLM_FORKS") == "0":
        return None
    if os.getpid() not in _ZYGOTES:
        _ZYGOTES[os.getpid()] = Zygote(usual)
    found = _ZYGOTES[os.getpid()]
    reasons = found.threads or sorted(found.strange(environment))
    if reasons:
        warnings.warn(f"no fork because of: {', '.join(reasons)}", stacklevel=3)
        return None
    return found.fork(module, words, folder, environment)
