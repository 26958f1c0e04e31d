"""Servers that a flow starts for a stage, and stops after it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import psutil

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import writable
from mlops_llm.pipeline.config import Server
from mlops_llm.ports import free_port, is_free

_PAUSE = 0.1
_PATIENCE = 10.0
"""Seconds that a server has for its end."""
_BELIEVED = 5.0
"""Seconds after which an answer is taken for the server's though none of its processes is seen to listen, as in a container."""
_TRIES = 3


class _EndedError(UserError):
    """A server ended before it answered."""


@contextmanager
def served(
    servers: Mapping[str, Server], names: Sequence[str], ports: Mapping[str, int], folder: Path
) -> Iterator[dict[str, str]]:
    """Run servers within the block.

    Args:
        servers: of the flow.
        names: those that are needed.
        ports: on which they must be, for a stage that goes on with an address that it knows; of others a free one is taken.
        folder: where their output is kept.

    Yields:
        Name -> `http://127.0.0.1:PORT`.

    Raises:
        UserError: one does not start, or its port is in use.
    """
    with ExitStack() as stack:
        found = {}
        for name in names:
            if name in ports and not is_free(ports[name]):
                raise UserError(f"port {ports[name]}, which the stage goes on with, is in use", f"servers.{name}", "free it")
            port = _entered(stack, name, servers[name], ports.get(name), writable(folder) / f"{name}.log")
            found[name] = f"http://127.0.0.1:{port}"
        yield found


def _entered(stack: ExitStack, name: str, server: Server, port: int | None, log: Path) -> int:
    """Start a server; return its port, another one where somebody took the drawn one before the server did."""
    for _ in range(_TRIES):
        drawn = port or free_port()
        try:
            stack.enter_context(_running(name, server, drawn, log))
            return drawn
        except _EndedError as error:
            if port or is_free(drawn):
                raise
            lost = error
    raise lost


@contextmanager
def _running(name: str, server: Server, port: int, log: Path) -> Iterator[None]:
    words = [sys.executable if each == "python" else each.replace("{port}", str(port)) for each in shlex.split(server.command)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlops_llm.launch.keeper", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await(name, server, port, process, log)
        console.say(f"server {name} runs on port {port}")
        yield
    finally:
        if process.stdin:
            process.stdin.close()  # what its keeper waits for
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        console.detail(f"server {name} is stopped")


def _await(name: str, server: Server, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + server.patience
    doubtful = 0.0
    while True:
        answers = _answers(f"http://127.0.0.1:{port}{server.ready}")
        if process.poll() is not None:  # what answers is another's
            raise _EndedError(f"ended with code {process.returncode} before it answered", f"servers.{name}", f"see {log}")
        if answers:
            doubtful = doubtful or time.monotonic()
            if _listens(process.pid, port) or time.monotonic() - doubtful > _BELIEVED:
                return
        elif time.monotonic() > until:
            raise UserError(f"does not answer after {server.patience:g} s", f"servers.{name}", f"see {log}")
        time.sleep(_PAUSE)


def _listens(pid: int, port: int) -> bool:
    """Whether a process, or one that it started, is seen to listen on a port."""
    with suppress(psutil.Error):
        keeper = psutil.Process(pid)
        for each in (keeper, *keeper.children(recursive=True)):
            with suppress(psutil.Error):
                if any(one.laddr.port == port for one in each.net_connections() if one.status == psutil.CONN_LISTEN):
                    return True
    return False


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, HTTPException, ValueError):
        return False
