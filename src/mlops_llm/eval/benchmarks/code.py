"""Programs that a model wrote, each run in a process of its own that is held back.

Limits hold a program's time, memory, files and processes; it has an empty environment, an empty folder and, where the system
allows it, no network. That guards against accidents: endless loops, memory eaten up, disks filled. It is no sandbox for
hostile code, which may read what its user may read.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.benchmarks.held import BUSY, LATE

SECONDS = 5
"""Processor time of a program."""
WALL = 30
"""Seconds that a program may take in all."""
MEMORY = 1 << 30
"""Bytes of its address space."""
FILES = 32
"""Files open at once. It can write none: the size of what it writes is limited to 0 bytes."""
_NOBODY = 65534
"""Whom a program runs as where we are root: limits on processes do not hold for root."""
_PROBE = "import collections, decimal, functools, hashlib, heapq, itertools, json, math, random, re, string, typing"


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    passed: bool
    cause: str = ""
    """Why it did not, in a line."""


def run(programs: Sequence[str], done: Callable[[int], None] | None = None) -> list[Ran]:
    """Run programs, a few at a time; one has passed if it comes to its end without an exception.

    Args:
        programs: Python sources.
        done: told after each how many have been run.
    """
    found = list[Ran]()
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        reads = _reads()
        for each in pool.map(lambda program: _one(program, reads=reads), programs):
            found.append(each)
            if done:
                done(len(found))
    return found


def check() -> None:
    """See that a harmless program runs here.

    Raises:
        UserError: it does not.
    """
    found = _one(_PROBE, reads=_reads())
    if not found.passed:
        what = f"a program of imports alone fails here when it is held back ({found.cause})"
        raise UserError(what, "benchmarks.allow_code", "leave humaneval out")


def held_back() -> str:
    """How programs are held back here, for the record."""
    network = "no network" if _unshare() else "the network is not cut off (the system does not allow it)"
    network += ", no sight of other processes" if "--fork" in _unshare() else ""
    user = f", as user {_NOBODY}{' who may read every file' if _reads() else ''}" if _drops() else ""
    return f"{SECONDS} s of processor time, {MEMORY >> 20} MiB, no files written, no new processes, {network}{user}"


def _one(program: str, *, reads: bool) -> Ran:
    token = secrets.token_hex(16)
    limits = {
        "RLIMIT_CPU": SECONDS,
        "RLIMIT_AS": MEMORY,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 0,
    }
    asked = {"program": program, "token": token, "limits": limits, "seconds": WALL}
    asked |= {"user": _NOBODY if _drops() else None, "reads": reads}
    with tempfile.TemporaryDirectory(prefix="mlops_llm-program-") as folder:
        Path(folder).chmod(0o500)  # a million empty folders are a full disk, too
        process = subprocess.Popen(
            [*_unshare(), sys.executable, "-I", str(Path(__file__).with_name("held.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # numpy may start no threads
            cwd=folder,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(json.dumps(asked).encode("ascii"), timeout=WALL + 5)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            return Ran(False, f"not finished in {WALL} s")
        finally:
            _kill(process)
    return _ending(out, token, process.returncode)


def _ending(out: bytes, token: str, code: int) -> Ran:
    try:
        said: Any = json.loads(out)
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("token") != token:
        if code in (BUSY, -signal.SIGXCPU, -signal.SIGKILL):
            return Ran(False, f"more than {SECONDS} s of processor time")
        if code == LATE:
            return Ran(False, f"not finished in {WALL} s")
        return Ran(False, f"ended the process itself (exit code {code})")
    return Ran(True) if said["ending"] == "passed" else Ran(False, " ".join(str(said["ending"]).split()).rstrip(": "))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@cache
def _drops() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@cache
def _reads() -> bool:
    """Whether user `_NOBODY` needs root's right to read, since Python's own files lie where others may not look."""
    return _drops() and not _one(_PROBE, reads=False).passed


@cache
def _unshare() -> tuple[str, ...]:
    """The command that cuts a process off from the network, and from other processes; empty where none is allowed."""
    found, user = shutil.which("unshare"), "" if _drops() else "r"
    for how in ((f"-{user}np", "--fork", "--kill-child"), (f"-{user}n",)):
        command = (found or "", *how, "--")
        if found and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return ()
