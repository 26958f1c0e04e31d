"""A server of models on this machine that lives as long as a `with` block."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlops_llm.console import seconds
from mlops_llm.errors import RequestError, UserError
from mlops_llm.inference import guard
from mlops_llm.ports import free_port

KEY = "MLOPS_LLM_SERVER_KEY"
"""Variable from which our own server takes the key that it asks for."""
_PAUSE = 0.2
_FOREIGN = ("VLLM_API_KEY", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of this process that would make the server ask for a key, or take itself for a part of a training."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PREFIX = re.compile(r"^\s*(\([^)]*pid=\d+\)\s*)?([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*)?")
_ERROR = re.compile(r"^[\w.]*(Error|Exception)\b.*:|: error: |^Value error, ")


class Server:
    """A server that was started here."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, model: str, log: Path, program: str, key: str) -> None:
        """Keep what belongs to it."""
        self._process, self.model, self.log, self.program, self.key = process, model, log, program, key
        self.address = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """Of the process that started the program and leads its group."""
        return self._process.pid

    def check(self) -> None:
        """See that it still runs.

        Raises:
            UserError: it has ended; what it said last is told.
        """
        if self._process.poll() is not None:
            raise UserError(f"{self.program} has ended: {last_words(self.log)}", "engine", f"see its log {self.log}")


@contextmanager
def serving(
    command: Sequence[str],
    more: Mapping[str, str],
    patience: float,
    names: Sequence[str] = (),
    program: str = "vLLM",
    *,
    locked: bool = False,
) -> Iterator[Server]:
    """Start a server on a free port of this machine alone, wait until it answers, and end it with its children afterwards.

    Args:
        command: what starts it; `--host`, `--port` and `--served-model-name` are added.
        more: environment variables that are set unless the user has set them.
        patience: seconds that it may take to start.
        names: of the model there, besides one that nobody else has.
        program: what messages call it.
        locked: answer only to who knows the server's `key`.

    Raises:
        RequestError: it ends before it answers, or takes too long; what it said last is told.
    """
    model, port = f"model-{secrets.token_hex(4)}", free_port()
    handle, name = tempfile.mkstemp(prefix="server-", suffix=".log")
    log, is_well, key = Path(name), False, secrets.token_hex(16) if locked else ""
    own = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", *names, model]
    process = subprocess.Popen(
        [sys.executable, "-I", str(guard.__file__), *command, *own],
        stdin=subprocess.PIPE,
        stdout=handle,
        stderr=handle,
        env={
            **{name: value for name, value in ({**more, **os.environ}).items() if name not in _FOREIGN},
            **({KEY: key, "VLLM_API_KEY": key} if locked else {}),
        },
        start_new_session=True,
    )
    os.close(handle)
    try:
        server = Server(process, port, model, log, program, key)
        _wait(server, patience)
        yield server
        is_well = process.poll() is None  # else its log is what says why it ended
    finally:
        _end(process)
        if is_well:
            log.unlink()


def _wait(server: Server, patience: float) -> None:
    """Wait until the server answers under its own name: another may have taken the port.

    Raises:
        RequestError: see `serving`.
    """
    began = time.monotonic()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        if server._process.poll() is not None:
            what = f"{server.program} does not start: {last_words(server.log)}"
            raise RequestError(what, "engine", f"see its log {server.log}")
        try:
            opener.open(f"{server.address}/health", timeout=5).close()
            asked = urllib.request.Request(f"{server.address}/v1/models", headers={"Authorization": f"Bearer {server.key}"})
            with opener.open(asked, timeout=5) as answer:
                if server.model in [each["id"] for each in json.loads(answer.read())["data"]]:
                    return
        except (OSError, ValueError, LookupError, TypeError):
            pass
        if time.monotonic() - began > patience:
            what = f"{server.program} does not answer after {seconds(patience)}; it said last: {last_words(server.log)}"
            raise RequestError(what, "engine.start_timeout", f"give it more time, or see its log {server.log}")
        time.sleep(_PAUSE)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the guard end the server, and do so oneself where the guard does not."""
    assert process.stdin
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(guard.GRACE + guard.LAST + 5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_words(log: Path) -> str:
    """What a log ends with, for one line: its first and last error where there are any, for the cause comes first."""
    text = _COLOURS.sub("", log.read_text("utf-8", "replace"))
    lines = [line for each in text.splitlines() if (line := _PREFIX.sub("", each).strip())]
    errors = list(dict.fromkeys(line for line in lines if _ERROR.search(line)))
    told = errors[:1] + errors[1:][-1:] if errors else lines[-3:]
    return " | ".join(line[:250] for line in told) or "nothing"
