"""A Ray cluster on this machine: a head with its dashboard, and nodes beside it, each ended by its process ids alone."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from tests.ports import own_port

STORE = 150_000_000
"""Bytes of a node's object store."""
AGAIN = 3
"""Further starts of nodes that Ray gave up on."""


class Cluster:
    """Nodes that listen to who knows their token."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        """Start the head.

        Args:
            folder: where Ray may write; a short path, since sockets lie in it.
            more: variables of the nodes' environment.
        """
        self.folder, self.token, self._nodes = folder, secrets.token_hex(32), list[subprocess.Popen[bytes]]()
        self._words, self._again = list[tuple[str, ...]](), AGAIN
        self._port, self._dashboard = own_port(), own_port()
        self._more = dict(more or {})
        listens = ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(self._dashboard), "--include-dashboard", "true"]
        where = ["--port", str(self._port), "--temp-dir", str(folder), "--ray-client-server-port", str(own_port())]
        self._start("--head", *where, *listens)
        self._wait(lambda: bool(self.read("/api/version")))

    @property
    def url(self) -> str:
        """Of the dashboard."""
        return f"http://127.0.0.1:{self._dashboard}"

    @property
    def variables(self) -> dict[str, str]:
        """What a command needs to find the cluster and be let in."""
        return {
            "RAY_API_SERVER_ADDRESS": self.url,
            "RAY_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }

    def add_node(self) -> None:
        """Start another node, and wait until the cluster has it."""
        self._start("--address", f"127.0.0.1:{self._port}")
        self._wait(lambda: '"CPU": [0.0, 2.0]' in self.read("/api/cluster_status"))

    def read(self, path: str) -> str:
        """What the dashboard shows under a path."""
        asked = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=20) as answer:
            return str(answer.read().decode())

    def workers(self, name: str) -> list[psutil.Process]:
        """Processes that run actors of a class, on all nodes."""
        found = []
        for node in self._nodes:
            for each in psutil.Process(node.pid).children(recursive=True):
                with suppress(psutil.Error):
                    found += [each] if f"ray::{name}" in " ".join(each.cmdline()) else []
        return found

    def end(self) -> None:
        """Kill every process of every node."""
        family = []
        for node in self._nodes:
            with suppress(psutil.Error):
                family += [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for each in family:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(family, timeout=20)
        for node in self._nodes:
            node.wait()

    def _start(self, *words: str) -> None:
        self._words.append(words)
        self._nodes.append(self._begun(len(self._nodes)))

    def _begun(self, number: int) -> subprocess.Popen[bytes]:
        ray = str(Path(sys.executable).parent / "ray")
        same = ["--num-cpus", "1", "--object-store-memory", str(STORE), "--node-ip-address", "127.0.0.1"]
        given = {**os.environ, **self._more, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        given |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "OMP_NUM_THREADS": "1"}
        given.pop("RAY_ADDRESS", None)
        command = [ray, "start", *self._words[number], *same, "--disable-usage-stats", "--block"]
        with self._log(number).open("wb") as output:
            return subprocess.Popen(command, env=given, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def _log(self, number: int) -> Path:
        return self.folder / f"node-{number}.log"

    def _start_late_ones_again(self) -> None:
        """Ray gives its own parts 30 seconds, which is too little on a machine that does other things too."""
        for number, node in enumerate(self._nodes):
            late = node.poll() is not None and "timed out during startup" in self._log(number).read_text("utf-8", "replace")
            if late and self._again:
                self._again -= 1
                self._nodes[number] = self._begun(number)

    def _wait(self, condition: Callable[[], bool], patience: float = 180) -> None:
        until = time.monotonic() + patience
        while True:
            with suppress(OSError, HTTPException):  # the dashboard is not up yet, or busy
                if condition():
                    return
            self._start_late_ones_again()
            ended = [node for node in self._nodes if node.poll() is not None]
            if ended or time.monotonic() > until:
                logs = "\n".join(file.read_text("utf-8", "replace") for file in self.folder.glob("node-*.log"))
                self.end()
                pytest.fail(f"a node of Ray ended, or took too long:\n{logs[-3000:]}")
            time.sleep(0.2)
