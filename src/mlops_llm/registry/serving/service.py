"""A server from its start to its end: the model behind, the front that clients see, the watch beside."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from mlops_llm import console
from mlops_llm.errors import RequestError, UserError, first_line
from mlops_llm.inference.connection import Connection
from mlops_llm.models.ref import Place
from mlops_llm.ports import family
from mlops_llm.record import Result, Run
from mlops_llm.registry.serving.following import Target, Watch
from mlops_llm.registry.serving.front import Front
from mlops_llm.registry.serving.standing import Post
from mlops_llm.registry.serving.starting import Ready, Starting

EVENTS = "serving.json"
_LAST = 10.0
"""Seconds that requests in work have when the server is ended."""


@dataclass(frozen=True)
class Service:
    """What is served, and how."""

    starting: Starting
    place: Place
    version: str
    target: Callable[[], Target] | None
    """Says what the followed alias points to."""
    host: str
    port: int
    key: str
    at_once: int
    every: float
    drain: float
    is_check: bool
    """Only prove that it works, and end."""

    @property
    def address(self) -> str:
        """For clients on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    def work(self, run: Run) -> Result:
        """Serve until Ctrl-C or SIGTERM.

        Raises:
            UserError: the model does not start, does not answer as it must, or cannot be started again.
        """
        began, post = time.monotonic(), Post()
        ready = self.starting.start(self.place, self.version)
        watch = Watch(post, self.starting, ready, self.target, self.every, self.drain)
        try:
            watch.tell = lambda one: self._record(run, one)
            watch.start()
            self._serve(post, watch)
        finally:
            if last := post.put(None):
                last.stack.close()
            watch.finish()
            run.artifact(EVENTS, json.dumps(watch.events, ensure_ascii=False, indent=1))
        if watch.failure:
            raise watch.failure
        return self._result(watch, post, time.monotonic() - began)

    def _serve(self, post: Post, watch: Watch) -> None:
        """Answer until told to end, and look after the model meanwhile.

        Raises:
            RequestError: another has taken the port since the work began.
        """
        door = _bound(self.host, self.port)
        front = Front(post, self.starting.names, self.key, self.at_once)
        server, over = _Server(front.application(), self.host, self.port, _room(self.at_once)), threading.Event()
        beside = threading.Thread(target=self._beside, args=[server, watch, over], name="watch", daemon=True)
        beside.start()
        try:
            asyncio.run(server.serve(sockets=[door]))
        finally:
            over.set()
            beside.join(_LAST)  # a model that still starts is ended by its guard
            door.close()

    def _beside(self, server: _Server, watch: Watch, over: threading.Event) -> None:
        """What is done while the front answers: it is asked as a client would, then watched."""
        try:
            while not server.started and not over.is_set():
                time.sleep(0.02)
            if over.is_set():
                return
            ready = watch.ready
            proof = self.starting.prove(self.address, ready.dtype, ready.wanted, key=self.key)
            if not proof.passed:
                raise UserError(f"does not answer as the model behind it: {proof.why}", self.address, "see what runs there")
            console.say(f"{self.starting.names[0]} answers at {self.address}: {proof.why}")
            if self.is_check:
                return
            console.say(f"deployment folder: {ready.deployment.folder}; end it with Ctrl-C")
            watch.run(over)
        except UserError as error:
            watch.failure = error
        except Exception as error:
            watch.failure = UserError(f"the watch failed: {first_line(error)}", self.address, "see the log")
            raise
        finally:
            server.should_exit = True

    def _record(self, run: Run, ready: Ready) -> None:
        """Say in the run who answers now."""
        standing = ready.standing
        facts = {"serve.address": self.address, "serve.ref": standing.ref, "serve.version": standing.version}
        run.tags({**facts, "digest.weights": standing.weights, "serve.proof": ready.proof.why})
        run.metrics({"probe/largest_difference": ready.proof.largest, "probe/tokens": ready.proof.tokens}, 0)

    def _result(self, watch: Watch, post: Post, seconds: float) -> Result:
        ready = watch.ready
        run_values: dict[str, Any] = {
            "address": self.address,
            "ref": ready.standing.ref,
            "version": ready.standing.version,
            "weights": ready.standing.weights,
            "probe": {**ready.proof.__dict__},
            "answered": post.answered,
            "failed": post.failed,
            "swaps": watch.swaps,
            "restarts": watch.restarts,
            "seconds": seconds,
            "folder": str(ready.deployment.folder),
            "events": watch.events,
        }
        table = {
            "served": f"{self.starting.names[0]} at {self.address}",
            "version": ready.standing.version,
            "proof": ready.proof.why,
            "requests": f"{post.answered} answered" + (f", {post.failed} failed" if post.failed else ""),
            "promotions followed": watch.swaps or "",
            "started again": watch.restarts or "",
            "time": console.seconds(seconds),
            "deployment folder": str(ready.deployment.folder),
        }
        title = f"{self.starting.names[0]} was served" if not self.is_check else f"{self.starting.names[0]} can be served"
        return Result(title, {name: said for name, said in table.items() if said}, run_values)


_CONNECTIONS = 1024
"""Open at once, at most, or twice as many as requests in work: of those without a request the oldest one leaves for a new one;
where there is none, the new one is told to come again (503)."""
_FILES = 128
"""Files that this process has open besides its clients' connections, and those to the model's process."""


def _room(at_once: int) -> int:
    """How many connections there is room for: each is a file, of which the system lets this process have so many."""
    connections = max(_CONNECTIONS, 2 * at_once)
    files = connections + at_once + _FILES
    most, bound = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= files:
        return connections
    most = files if bound == resource.RLIM_INFINITY else max(most, min(bound, files))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, bound))
    left = most - _FILES
    return max(2, min(connections, max(left - at_once, left // 2)))  # a request in work is a file there and one behind


class _Server(uvicorn.Server):  # type: ignore[misc]
    """A server that SIGINT and SIGTERM end in good order, as the ordinary end of this work."""

    def __init__(self, application: Any, host: str, port: int, connections: int) -> None:
        """Configure it."""
        quiet = {"access_log": False, "log_level": "warning", "log_config": None}
        more = {"timeout_graceful_shutdown": _LAST, "lifespan": "on", "server_header": False}
        most = {"limit_concurrency": connections, "timeout_keep_alive": 5, "http": Connection, "ws": "none"}
        super().__init__(uvicorn.Config(application, host=host, port=port, **quiet, **more, **most))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals; unlike uvicorn, do not raise them again afterwards."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def refuse_port(host: str, port: int) -> None:
    """See that a port can be listened on.

    Raises:
        RequestError: it cannot.
    """
    _bound(host, port).close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that can be listened with."""
    door = socket.socket(family(host))
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        door.bind((host, port))
    except socket.gaierror as error:
        door.close()
        raise RequestError(f"{host} is no address of this machine", "op.host", "give one, such as 127.0.0.1") from error
    except OSError as error:
        door.close()
        what = f"{host}:{port} cannot be listened on ({error.strerror or error})"
        raise RequestError(what, "op.port", f"take another: op.port={port + 1 if port < 65535 else 8000}") from error
    return door


def names_of(place: Place, name: str, refs: Sequence[str]) -> tuple[str, ...]:
    """Under which names a model is served: the registered one, or that of its run or folder, then its refs."""
    short = name or place.ref.rstrip("/").rpartition("/")[2] or place.ref
    if place.ref.startswith("runs:/"):
        short = name or place.ref.removeprefix("runs:/").partition("/")[0]
    return tuple(dict.fromkeys([short, *refs]))
