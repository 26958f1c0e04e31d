"""Processes that live and end together."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil
from parts import Part, ServerError

MARK = "MLOPS_LLM_SERVER"
"""Variable by which a server's processes are known: its folder."""
_PATIENCE = 30.0
"""Seconds in which a part may end in order."""
_PR_SET_PDEATHSIG = 1


class Tree:
    """The parts of a server that were started, in their order."""

    def __init__(self, folder: Path) -> None:
        """Begin with none; SIGINT and SIGTERM end a wait."""
        self._folder = folder
        self._running: list[tuple[Part, subprocess.Popen[bytes]]] = []
        self._stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stopped)

    @property
    def stopped(self) -> bool:
        """Whether somebody wants the end."""
        return self._stop.is_set()

    def start(self, part: Part) -> None:
        """Start a part in a session of its own: Ctrl-C reaches this process only, which ends the parts in their order."""
        with self._log(part).open("ab") as log:
            process = subprocess.Popen(
                part.command,
                cwd="/" if part.account else self._folder,
                env={**os.environ, **part.environment, MARK: str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_ends_with_this(part.ending),
                **as_account(part.account),
            )
        self._running.append((part, process))

    def wait(self, ready: Callable[[], bool] | None = None, patience: float = float("inf")) -> bool:
        """Wait until something is so; return False where the end is wanted first.

        Raises:
            ServerError: a part died, or it takes longer than `patience` seconds.
        """
        until = time.monotonic() + patience
        while not self.stopped:
            for part, process in self._running:
                if process.poll() is not None:
                    raise ServerError(f"{part.name} ended ({_how(process.returncode)}): {last_line(self._log(part))}")
            if ready and ready():
                return True
            if time.monotonic() > until:
                part = self._running[-1][0]
                raise ServerError(f"{part.name} is not ready after {patience:.0f} s: {last_line(self._log(part))}")
            self._stop.wait(0.2)
        return False

    def end(self) -> None:
        """End the parts, the last one first, each with all its processes."""
        while self._running:
            part, process = self._running.pop()
            _signal_group(process.pid, part.ending)
            until = time.monotonic() + _PATIENCE
            while (process.poll() is None or _signal_group(process.pid, 0)) and time.monotonic() < until:
                time.sleep(0.05)
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()

    def _log(self, part: Part) -> Path:
        return self._folder / "logs" / f"{part.name}.log"

    def _stopped(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()


def as_account(name: str) -> dict[str, object]:
    """Arguments of `subprocess` by which a process is another account's; none for an empty name."""
    if not name:
        return {}
    found = pwd.getpwnam(name)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def end_left_over(folder: Path) -> None:
    """End what a server of this folder left that was killed itself."""
    left = [each for each in psutil.process_iter() if _is_of(each, folder)]
    for each in left:
        _send(each, signal.SIGINT if "postgres" in _name(each) else signal.SIGTERM)
    _, alive = psutil.wait_procs(left, timeout=_PATIENCE)
    for each in alive:
        _send(each, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty; where it is."""
    lines = [each for each in log.read_text("utf-8", "replace").splitlines() if each.strip()] if log.exists() else []
    return f"{lines[-1].strip()[:300]} (all of it: {log})" if lines else f"it said nothing ({log})"


def _is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(MARK) == str(folder)
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _signal_group(group: int, number: int) -> bool:
    """Signal all processes of a group; return whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _ends_with_this(number: int) -> Callable[[], None] | None:
    """What lets a child get a signal when this process dies, however; the kernel of Linux does that."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, number)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
