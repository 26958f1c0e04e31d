"""Where the processes of a training find the one that started them."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlops_llm.errors import UserError
from mlops_llm.tracking import environment
from mlops_llm.train import versions

_FIRST = 30.0
"""Seconds in which a connection stands and has said who it is."""
_ROOM = 64
"""Connections at once that have not said it yet; further ones wait before the door."""
_LONGEST_FIRST = 2000
"""Bytes of what it says then."""
_TOUCH = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}
"""Seconds of silence, seconds between questions, and questions without an answer."""


class Door:
    """A socket of this machine, or a port where others come too.

    Who comes in shows a token, which stands with the address in a file that only this user reads.
    """

    def __init__(self, file: Path, address: str = "") -> None:
        """Open it.

        Args:
            file: says where it is.
            address: of this machine, for others; empty where all are on this one.
        """
        self._file, self._token, self._folder = file, secrets.token_hex(32), ""
        self._starts: dict[str, int] = {}
        self._room = threading.Semaphore(_ROOM)
        if address:
            self._listener = _listening(address)
            place: dict[str, Any] = {"port": [address, self._listener.getsockname()[1]]}
        else:
            self._folder = tempfile.mkdtemp(prefix="mlops_llm-")  # the path of a socket has at most 107 characters
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(f"{self._folder}/launcher")
            self._listener.listen()
            place = {"socket": f"{self._folder}/launcher"}
        file.unlink(missing_ok=True)
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(json.dumps(place | {"token": self._token}), "ascii")

    def visitors(self) -> Iterator[socket.socket]:
        """Connections as they come, until the door is closed; each must be `entered`, which makes room for another."""
        while True:
            self._room.acquire()
            try:
                yield self._listener.accept()[0]
            except OSError:
                return

    def entered(self, connection: socket.socket) -> dict[str, Any] | None:
        """The first message of a connection; None of one that does not belong here."""
        try:
            message = json.loads(_first_line(connection, time.monotonic() + _FIRST))
            if not hmac.compare_digest(str(message["token"]).encode(), self._token.encode()):
                return None
            start = self._starts.setdefault(str(message["round"]), len(self._starts))
            connection.sendall(json.dumps({"start": start}).encode() + b"\n")
            connection.settimeout(None)
            return {**message, "start": start}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        finally:
            self._room.release()

    def close(self) -> None:
        """Let nobody in any more."""
        with suppress(OSError):  # nobody came
            self._listener.shutdown(socket.SHUT_RDWR)  # lets the thread that waits go
        self._listener.close()
        self._file.unlink(missing_ok=True)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


class Entered(NamedTuple):
    """What a process has when it was let in."""

    connection: socket.socket
    start: int
    """How often the processes started before."""


def enter(file: Path, rank: int) -> Entered:
    """Connect to the process that opened a door, and say who this is.

    Args:
        file: that of the `Door`.
        rank: of this process.
    """
    told = json.loads(file.read_text("ascii"))
    if "port" in told:
        connection = socket.create_connection(tuple(told["port"]), timeout=_FIRST)
        _stay_in_touch(connection)
    else:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(told["socket"])
    who: dict[str, Any] = {
        "token": told["token"],
        "rank": rank,
        "pid": os.getpid(),
        "host": environment.host(),
        "round": _round(os.environ),
    }
    if "port" in told:
        who["versions"] = versions.here()
    connection.sendall(json.dumps(who).encode() + b"\n")
    answer = json.loads(_first_line(connection))
    connection.settimeout(None)
    return Entered(connection, int(answer["start"]))


def _stay_in_touch(connection: socket.socket) -> None:
    """Let the system notice within about a minute that the other machine is away, which nobody told."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TOUCH.items():
        if hasattr(socket, name):  # what a system has of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _round(env: Mapping[str, str]) -> str:
    """What is the same for all processes that start together, and another at each start.

    torchrun counts the starts of one machine; over several, where only that machine counts on which a process died, it takes
    a new port for each.
    """
    if int(env.get("GROUP_WORLD_SIZE", "1")) > 1:
        return f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
    return env.get("TORCHELASTIC_RESTART_COUNT", "0")


def _first_line(connection: socket.socket, until: float | None = None) -> bytes:
    """Byte by byte, so that nothing behind it is taken; empty where the other end is gone.

    Raises:
        TimeoutError: it is not whole at that time, however its bytes come.
    """
    text = b""
    while not text.endswith(b"\n") and len(text) < _LONGEST_FIRST:
        if until is not None:
            connection.settimeout(max(1e-3, until - time.monotonic()))
        byte = connection.recv(1)
        if not byte:
            return b""
        text += byte
    return text


def _listening(address: str) -> socket.socket:
    try:
        return socket.create_server((address, 0))
    except OSError as error:
        remedy = "give distributed.address, by which the other machines reach this one"
        raise UserError(f"this machine has no such address ({error.strerror})", address, remedy) from error
