"""Start the processes of a training with torchrun, keep their record, and end them all when one fails."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import component, console
from mlops_llm.errors import UserError
from mlops_llm.files import writable, write_text
from mlops_llm.record import Result, Run
from mlops_llm.train import distributed
from mlops_llm.train.relay import Line, perform

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.plan import Plan

ADDRESS = "MLOPS_LLM_LAUNCHER"
"""Variable by which the processes find the one that started them."""
PATIENCE = 20.0
"""Seconds that processes have to end by themselves."""


def launched(plan: Plan, run: Run) -> Result:
    """Train as planned in processes of their own; what the first of them records goes to `run`.

    Raises:
        UserError: one of them failed: its last word, and all have ended.
    """
    folder = writable(Path(str(plan.settings.output)) / "ranks")
    told = {"run": run.name, "settings": component.plain(plan.settings), "correction": asdict(plan.estimate.correction)}
    file = write_text(folder / "settings.json", json.dumps(told))
    words, count = command(plan.settings, file), plan.settings.distributed.count
    console.say(f"starting {count} processes: {shlex.join(['python', *words[1:]])}")
    ranks = Ranks(words, environment(count), plan.folder, folder)
    try:
        return ranks.serve(run, count)
    finally:
        ranks.close()


def dry(settings: Train) -> dict[str, str]:
    """What would be started, for a person who asks for the plan."""
    how = settings.distributed
    if not how.several:
        return {}
    words = command(settings, Path(str(settings.output)) / "ranks" / "settings.json")
    found = {"starts": shlex.join(["python", *words[1:]]), "with": json.dumps(how.arguments(settings))}
    try:
        how.require()
    except UserError as error:
        found["cannot run here"] = str(error)
    return found


def command(settings: Train, file: Path) -> list[str]:
    """The command that starts the processes."""
    how = settings.distributed
    meet = ["--standalone", "--local-addr=127.0.0.1"]
    if how.port:
        meet = ["--nnodes=1", "--master-addr=127.0.0.1", f"--master-port={how.port}"]
    torchrun = [sys.executable, "-m", "mlops_llm.train.elastic", *meet, f"--nproc-per-node={how.count}"]
    return [*torchrun, "-m", "mlops_llm.train.worker", str(file)]


def environment(count: int) -> dict[str, str]:
    """The environment of the processes."""
    cores = str(max(1, (os.cpu_count() or 1) // count))
    defaults = {"OMP_NUM_THREADS": cores, **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})}
    # Without this one processes of a second start sometimes did not find each other.
    wanted = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    if not distributed.gpus():
        # The second: a resume would look for the random state of a device "cpu:0".
        wanted |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_TORCH_DEVICE": "cpu"}
    return {**defaults, **os.environ, **wanted}


class Ranks:
    """The processes, their connections, and torchrun above them."""

    def __init__(self, words: list[str], env: Mapping[str, str], folder: Path, logs: Path) -> None:
        """Start them.

        Args:
            words: the command.
            env: its environment.
            folder: where it runs.
            logs: folder of what they print.
        """
        self._logs = logs
        self._place = Path(tempfile.mkdtemp(prefix="mlops_llm-"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._place / "launcher"))
        self._listener.listen()
        self._events: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
        self._lines: dict[int, Line] = {}
        self._pids: dict[int, int] = {}
        self._known: dict[int, int] = {}
        threading.Thread(target=self._accept, daemon=True).start()
        with (logs / "torchrun.log").open("wb") as log:
            self._torchrun = subprocess.Popen(
                words,
                cwd=folder,
                env={**env, ADDRESS: str(self._place / "launcher")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process, which ends the others
            )

    def serve(self, run: Run, count: int) -> Result:
        """Record what the first process asks for until all have ended; return what it ends with.

        Raises:
            UserError: a process failed.
        """
        result: Result | None = None
        failed: list[tuple[int, dict[str, Any]]] = []
        done: set[int] = set()
        terminal = console.Told()
        try:
            while event := self._next():
                rank, message = event
                if message is None:
                    del self._pids[rank]
                    if rank not in done:
                        failed.append((rank, {}))
                elif "record" in message:
                    answer = perform(run, message)
                    with suppress(OSError):  # it may be gone meanwhile, which is told next
                        self._lines[rank].send(answer=answer)
                elif "told" in message:
                    terminal.hear(message["told"], message["values"])
                elif "failed" in message:
                    failed.append((rank, message))
                    done.add(rank)
                else:
                    result = message["done"] or result
                    done.add(rank)
        finally:
            terminal.close()
        code = self._torchrun.wait()
        if failed or code or result is None:
            raise self._reason(run.name, failed, count, code)
        return result

    def _next(self) -> tuple[int, dict[str, Any] | None] | None:
        """The next that a process says, or (its rank, None) when it is gone; None when all are."""
        while True:
            try:
                return self._events.get(timeout=0.2)
            except queue.Empty:
                if self._torchrun.poll() is None:
                    continue
            if not self._pids:
                return None
            for line in self._lines.values():  # torchrun was killed, and left them behind
                line.end()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._read, args=(Line(connection),), daemon=True).start()

    def _read(self, line: Line) -> None:
        rank = -1
        for message in line.messages():
            if rank < 0:
                rank = int(message["rank"])
                self._lines[rank], self._pids[rank] = line, int(message["pid"])
                self._known[rank] = self._pids[rank]
            else:
                self._events.put((rank, message))
        if rank >= 0:
            self._events.put((rank, None))

    def _reason(self, name: str, failed: list[tuple[int, dict[str, Any]]], count: int, code: int) -> UserError:
        """What the first process to fail said; one that only missed another is not the first."""
        on = f"go on with: resume={name}"
        if not failed:
            said = _last_line(self._logs / "torchrun.log")
            return UserError(f"the processes did not start ({said or f'exit code {code}'})", str(self._logs / "torchrun.log"))
        rank, why = next((each for each in failed if not each[1].get("missed")), failed[0])
        if why.get("user"):
            return UserError(*why["failed"])
        log = str(self._logs / f"rank-{rank}.log")
        if not why:
            return UserError(f"process {rank} of {count} ended without a word ({self._end_of(rank)})", log, on)
        error = UserError(f"process {rank} of {count} failed: {why['failed'][0]}", log, on)
        error.__cause__ = _RemoteError(why["traceback"])
        return error

    def _end_of(self, rank: int) -> str:
        """What torchrun says of a process's end."""
        said = (self._logs / "torchrun.log").read_text("utf-8", "replace")
        code = re.search(rf"exitcode\s*: (-?\d+)\)? .*\(pid: {self._known[rank]}\)", said)
        if code is None or int(code[1]) >= 0:
            return f"exit code {code[1]}" if code else "killed, or out of memory"
        name = signal.Signals(-int(code[1])).name
        return f"{name}: killed, or out of memory" if name == "SIGKILL" else name

    def close(self) -> None:
        """End all that still run."""
        with suppress(OSError):  # nobody connected
            self._listener.shutdown(socket.SHUT_RDWR)  # lets the thread that waits for connections go
        self._listener.close()
        for line in list(self._lines.values()):
            line.end()  # they see that nobody is here any more, and end
        if self._torchrun.poll() is None:
            self._torchrun.terminate()
        try:
            self._torchrun.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._torchrun.kill()
        until = time.monotonic() + 2
        while self._events_end() and time.monotonic() < until:
            time.sleep(0.05)
        for pid in self._pids.values():
            _kill(pid)
        for line in self._lines.values():
            line.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def _events_end(self) -> bool:
        """Take note of those that are gone; whether any is still there."""
        while not self._events.empty():
            rank, message = self._events.get()
            if message is None:
                self._pids.pop(rank, None)
        return bool(self._pids)


class _RemoteError(Exception):
    """An error of another process, with its traceback as its text."""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_line(file: Path) -> str:
    lines = file.read_text("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
