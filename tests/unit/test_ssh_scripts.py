"""The scripts of launch=ssh, run by this machine's own shell: what they look for, leave and take away."""

from __future__ import annotations

import http.server
import os
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlops_llm.launch.ssh import far
from mlops_llm.launch.ssh.connection import Connection


@dataclass(frozen=True)
class Near(Connection):
    """This machine, as if it were the other one."""

    host: str = "gpu1"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    """Words of the scripts so far."""

    def argv(self, *more: str, shared: bool = True) -> list[str]:
        """A shell in place of ssh and its host."""
        return ["sh", "-c"]

    def ask(self, script: str, *words: str, patience: float = 120.0) -> bytes:
        """Run a script, and remember its words."""
        self.asked.append(words)
        return super().ask(script, *words, patience=patience)


@pytest.fixture
def to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """A machine with an empty home folder."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Near()


@pytest.fixture
def record() -> Iterator[str]:
    """Address, with a password, of a server that wants one."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:pw-of-mine@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_record_with_a_password_is_tried_without_it(to: Near, record: str) -> None:
    assert far.look(to, "f", sys.executable, record).answers
    assert not [word for words in to.asked for word in words if "pw-of-mine" in word]


