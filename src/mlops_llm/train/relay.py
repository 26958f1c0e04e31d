"""The line between the first process of a training and the one that started it, which alone holds the record.

One JSON object a line over a socket. What is recorded waits for the answer: when a checkpoint counts as published, it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mlops_llm.launch import stopping
from mlops_llm.record import Answer, Checkpoint, DatasetInput, Grid, Registration, Result, Run
from mlops_llm.train.door import enter

_RECORDS = {cls.__name__: cls for cls in (Answer, Checkpoint, DatasetInput, Grid, Registration, Result)}
_CALLS = ("params", "tags", "metrics", "input", "artifact", "checkpoint", "uses", "forget", "answers")


class Line:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Wrap a socket that is connected."""
        self._socket, self._file = connection, connection.makefile("rb")
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send a message."""
        text = json.dumps(message, default=_plain)
        with self._lock:
            self._socket.sendall(text.encode("ascii") + b"\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """What arrives, until the other end is gone; what a death cut off is left out."""
        try:
            for line in self._file:
                if line.endswith(b"\n"):
                    yield json.loads(line, object_hook=_revived)
        except OSError:
            return

    def end(self) -> None:
        """Let the other end see that nothing comes any more; what it still sends arrives."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it is gone already

    def close(self) -> None:
        """Close this end."""
        self._file.close()
        self._socket.close()


class Launcher:
    """The process that started this one, as this one sees it; when it is gone, this one ends too."""

    def __init__(self, file: Path, rank: int) -> None:
        """Connect and say who this is.

        Args:
            file: that of the `Door`.
            rank: of this process.
        """
        entered = enter(file, rank)
        self.start = entered.start
        """How often the processes started before."""
        self._line, self._answers = Line(entered.connection), queue.SimpleQueue[Any]()
        threading.Thread(target=self._listen, name="launcher", daemon=True).start()

    def _listen(self) -> None:
        for message in self._line.messages():
            if "stop" in message:
                stopping.ask()
            else:
                self._answers.put(message["answer"])
        os._exit(1)

    def tell(self, **message: Any) -> None:
        """Say something that needs no answer."""
        self._line.send(**message)

    def ask(self, **message: Any) -> Any:
        """Say something and wait for the answer."""
        self._line.send(**message)
        return self._answers.get()


class RelayedRun:
    """A `record.Run` that another process writes down."""

    def __init__(self, launcher: Launcher, name: str, output: Path) -> None:
        """Keep where to write.

        Args:
            launcher: holds the record.
            name: of the run.
            output: folder of the run's files.
        """
        self._launcher, self._output = launcher, output
        self.name = name

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings."""
        self._call("params", dict(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record searchable facts."""
        self._call("tags", dict(values))

    def metrics(
        self, values: Mapping[str, float], step: int, checkpoint: Checkpoint | None = None, dataset: str | None = None
    ) -> None:
        """Record numbers at a step."""
        self._call("metrics", dict(values), step, checkpoint, dataset)

    def input(self, dataset: DatasetInput) -> None:
        """Record a dataset that the run reads."""
        self._call("input", dataset)

    def artifact(self, name: str, content: str | Path | Mapping[str, list[Any]]) -> None:
        """Keep a text, a file or a table."""
        self._call("artifact", name, content if isinstance(content, str | Path) else dict(content))

    def checkpoint(self, checkpoint: Checkpoint, params: Mapping[str, Any]) -> None:
        """Publish a checkpoint."""
        self._call("checkpoint", checkpoint, dict(params))

    def uses(self, checkpoint: Checkpoint) -> None:
        """Name weights that the run reads."""
        self._call("uses", checkpoint)

    def forget(self, checkpoint: Checkpoint) -> bool:
        """Drop a checkpoint's files unless the registry names it."""
        return bool(self._call("forget", checkpoint))

    def figure(self, name: str, figure: Any) -> None:
        """Keep a matplotlib figure as a picture."""
        path = self._output / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, bbox_inches="tight")
        self.artifact(name, path)

    def answers(self, answers: Sequence[Answer], checkpoint: Checkpoint | None = None) -> None:
        """Show answers one by one."""
        self._call("answers", list(answers), checkpoint)

    def register(self, entry: Registration, of_run: str = "") -> None:
        """The process that started the ranks registers."""
        raise NotImplementedError("a rank registers nothing")

    def child(self, name: str, settings: Mapping[str, Any]) -> AbstractContextManager[Run]:
        """Ranks share one run; what opens others is no work of theirs."""
        raise NotImplementedError("a rank opens no run")

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._launcher.ask(record=method, arguments=arguments)


def perform(run: Run, message: Mapping[str, Any]) -> Any:
    """Do in the record what a `RelayedRun` asked for, and return its answer."""
    if message["record"] not in _CALLS:
        raise ValueError(f"nothing in a record is called {message['record']}")
    return getattr(run, message["record"])(*message["arguments"])


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return {"$": "Path", "value": str(value)}
    if type(value).__name__ in _RECORDS:
        return {"$": type(value).__name__, "value": {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}}
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no part of a record")


def _revived(found: dict[str, Any]) -> Any:
    if set(found) != {"$", "value"}:
        return found
    return Path(found["value"]) if found["$"] == "Path" else _RECORDS[found["$"]](**found["value"])
