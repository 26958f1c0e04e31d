"""Servers that a flow starts for a stage, and stops after it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import writable
from mlops_llm.pipeline.config import Server
from mlops_llm.ports import free_port, is_free

_PAUSE = 0.1
_PATIENCE = 10.0
"""Seconds that a server has for its end."""


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
            port = ports.get(name) or free_port()
            if name in ports and not is_free(port):
                raise UserError(f"port {port}, which the stage goes on with, is in use", f"servers.{name}", "free it")
            stack.enter_context(_running(name, servers[name], port, writable(folder) / f"{name}.log"))
            found[name] = f"http://127.0.0.1:{port}"
        yield found


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
    while not _answers(f"http://127.0.0.1:{port}{server.ready}"):
        if process.poll() is not None:
            raise UserError(f"ended with code {process.returncode} before it answered", f"servers.{name}", f"see {log}")
        if time.monotonic() > until:
            raise UserError(f"does not answer after {server.patience:g} s", f"servers.{name}", f"see {log}")
        time.sleep(_PAUSE)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, HTTPException, ValueError):
        return False
