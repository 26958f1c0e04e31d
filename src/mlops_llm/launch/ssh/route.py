"""How a process there reaches the record here, or wherever it is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.place import CREDENTIALS
from mlops_llm.launch.queue import queue_folder
from mlops_llm.launch.ssh.connection import PATIENCE, Connection
from mlops_llm.ports import LOOPBACK, free_port
from mlops_llm.tracking import door, proxied, store
from mlops_llm.tracking.secrets import mask_address

_OURS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_LONG = 86400
"""Seconds for which a command there waits at its start for somebody to attend."""
_PAUSES = (0.5, 1.0, 2.0, 5.0)
_END = 10.0
_STAYS = "exec sh -c 'cat >/dev/null; kill $PPID'"
"""What the tunnel's connection does there: it ends when this process does, however that ends, and ends sshd's part with it,
which would else keep the port as long as a process there has a connection open."""


class Tracking(Enum):
    """How the process there reaches the record."""

    auto = "auto"
    tunnel = "tunnel"
    direct = "direct"


@dataclass(frozen=True)
class Route:
    """How a process there reaches the record."""

    kind: str
    """`door`: a server on a local record, started here while somebody attends; `tunnel`: a server, through this machine;
    `direct`: a server that it reaches itself."""
    port: int = 0
    """There, of the tunnel's end."""
    root: str = ""
    """Address of the folder of artifacts that a door hands over."""

    def address(self, record: str) -> str:
        """Address of the record for the process there."""
        if self.kind == "door":
            return f"https://{LOOPBACK}:{self.port}"
        if self.kind == "direct":
            return record
        parts = urlsplit(record)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{user}{LOOPBACK}:{self.port}"))

    def variables(self, record: str, identity: str) -> dict[str, str]:
        """Variables by which the process there finds the record; some may be secrets.

        Args:
            record: its address here.
            identity: file there of the door's certificate.
        """
        found = {"MLFLOW_TRACKING_URI": self.address(record), store.PATIENCE: str(_LONG)}
        if self.kind == "door":
            return found | dict(door.credentials(identity)) | {proxied.ROOT: self.root, store.PAGES: store.LOCAL_PAGES}
        shown = {} if self.kind == "direct" else {store.PAGES: mask_address(record)}
        return found | shown | {name: os.environ[name] for name in CREDENTIALS if os.environ.get(name)}


def chosen(record: str, location: str, wish: Tracking, port: int, answers: bool) -> Route:
    """Which way it is.

    Args:
        record: address of the record, as it is known here.
        location: address of the run's artifacts.
        wish: the setting.
        port: one that is free there.
        answers: the record's server answers there.

    Raises:
        UserError: there is none.
    """
    root = door.artifact_root(record, location)
    if not record.startswith("http"):
        if wish is Tracking.direct:
            remedy = "start a server that both reach and name it in MLFLOW_TRACKING_URI, or leave launch.tracking out"
            raise UserError("the record is a file or database of this machine", "launch.tracking", remedy)
        return Route("door", port, root)
    if root:
        what = f"the server keeps artifacts in a folder of its own ({root}), which the other machine does not have"
        raise UserError(what, mask_address(record), "start it with --serve-artifacts and an --artifacts-destination")
    parts = urlsplit(record)
    if wish is Tracking.direct or (wish is Tracking.auto and answers and parts.hostname not in _OURS):
        if not answers:
            raise UserError("does not answer on the other machine", mask_address(record), "use launch.tracking=tunnel")
        return Route("direct")
    if parts.scheme == "https":
        what = "does not answer on the other machine, and its certificate is for this name only"
        raise UserError(what, mask_address(record), "let that machine reach it")
    return Route("tunnel", port)


def is_elsewhere(record: str) -> bool:
    """Whether a record may be reached from another machine by its own address."""
    return record.startswith("http") and urlsplit(record).hostname not in _OURS


def identity_file(run: str) -> Path:
    """Where the certificate of a run's door is kept here."""
    return queue_folder() / "ssh" / f"{run}.pem"


def check_forwarding(to: Connection, port: int) -> None:
    """See that a port there can be forwarded to here.

    Raises:
        LostError: the machine cannot be reached.
        UserError: it does not allow it.
    """
    argv = to.argv("-T", "-o", "ExitOnForwardFailure=yes", "-R", f"{LOOPBACK}:{port}:{LOOPBACK}:9", shared=False)
    try:
        done = subprocess.run([*argv, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise LostError("does not answer", to.host) from error
    if done.returncode:
        raise to.error(done.returncode, done.stderr.decode("utf-8", "replace"))


@contextmanager
def standing(to: Connection, route: Route, record: str, run: str) -> Iterator[None]:
    """Keep the way to the record open within the block, also over lost connections.

    Args:
        to: the machine.
        route: the way.
        record: address of the record.
        run: id of the run.
    """
    if route.kind == "direct":
        yield
        return
    if route.kind == "tunnel":
        parts = urlsplit(record)
        host = LOOPBACK if parts.hostname == "0.0.0.0" else parts.hostname
        with _tunnel(to, route.port, f"{host}:{parts.port or 80}"):
            yield
        return
    port = free_port()
    with _served(record, route, port, run), _tunnel(to, route.port, f"{LOOPBACK}:{port}"):
        yield


@contextmanager
def _served(record: str, route: Route, port: int, run: str) -> Iterator[None]:
    """Keep the door's server running within the block."""
    words, variables = door.server(record, route.root, port, identity_file(run))
    log = identity_file(run).with_suffix(".log")

    def begin() -> subprocess.Popen[bytes]:
        with log.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "mlops_llm.launch.keeper", *words],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )

    def watch(server: subprocess.Popen[bytes]) -> str:
        server.wait()
        said = log.read_text("utf-8", "replace").strip().splitlines() or [f"code {server.returncode}"]
        return (
            f"the server on the record has ended ({said[-1][:300]}), and is begun anew; what is recorded waits there meanwhile"
        )

    with _held(begin, watch, told=1):
        yield
    log.unlink(missing_ok=True)


@contextmanager
def _tunnel(to: Connection, port: int, target: str) -> Iterator[None]:
    """Keep a tunnel within the block."""
    argv = to.argv("-T", "-o", "ExitOnForwardFailure=yes", "-R", f"{LOOPBACK}:{port}:{target}", shared=False)

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*argv, _STAYS],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process alone
        )

    def watch(tunnel: subprocess.Popen[bytes]) -> str:
        said = tunnel.stderr.read().decode("utf-8", "replace") if tunnel.stderr else ""
        tunnel.wait()
        error = to.error(tunnel.returncode, said)
        return f"the way to the record does not stand ({error}); what is recorded waits there, and is not lost"

    with _held(begin, watch, told=4):
        yield


@contextmanager
def _held(
    begin: Callable[[], subprocess.Popen[bytes]], watch: Callable[[subprocess.Popen[bytes]], str], told: int
) -> Iterator[None]:
    """Keep a process running within the block; one that ends is begun anew.

    Args:
        begin: begins it; it ends with its input.
        watch: waits for its end, and returns what a person is to know of that.
        told: the try after which a person is told.
    """
    over = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def hold() -> None:
        tries = 0
        while not over.is_set():
            current[:] = [begin()]
            if over.is_set():
                _ended(current[0])
                return
            complaint = watch(current[0])
            tries += 1
            if tries == told and not over.is_set():
                console.warn(complaint)
            over.wait(_PAUSES[min(tries, len(_PAUSES)) - 1])

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        for each in current:
            _ended(each)
        thread.join(_END)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """End a process that ends with its input."""
    with suppress(OSError):
        if process.stdin:
            process.stdin.close()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def named_secrets(names: tuple[str, ...], here: Mapping[str, str]) -> dict[str, str]:
    """Variables that a command names and that are set here."""
    return {name: here[name] for name in names if here.get(name)}
