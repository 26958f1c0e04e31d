"""What was answered to lm-eval's requests, in a file, so that a killed benchmark goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.console import Progress
from mlops_llm.eval.score import PASSING, Kept
from mlops_llm.inference.engine import Class, Failure


@dataclass
class Told:
    """What is known of a request's answer besides the answer."""

    seconds: float = 0.0
    failure: Failure | None = None


@dataclass
class Book:
    """Answers by the number of their request: lm-eval asks for the same in the same order every time.

    It is lm-eval's cache hook at the same time: models tell it each answer when it is there. They are written when `flush` is
    called, which is between batches, so that a resumed benchmark makes the same batches as one that was never stopped.
    """

    file: Path
    what: str
    """Told with the progress."""
    asked: int = 0
    resumed: int = 0
    told: dict[tuple[str, ...], Told] = field(default_factory=dict)
    """Request -> what is known of its answer."""
    cut: set[str] = field(default_factory=set)
    """Prompts that lost their beginning because they are longer than the model's window."""

    def __post_init__(self) -> None:
        """Read what is there."""
        self._kept, self._next = Kept(self.file), 0
        self._places = dict[tuple[str, ...], list[int]]()
        self._rows, self._new = list[tuple[int, tuple[str, ...], dict[str, Any]]](), set[tuple[str, ...]]()
        self._progress: Progress | None = None
        self._done, self._last = 0, time.perf_counter()

    def answered(self, kind: str, requests: Sequence[Any], ask: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Answers to requests: those that are in the file, and what `ask` gives for the others.

        Args:
            kind: lm-eval's name of what is asked.
            requests: lm-eval's instances.
            ask: the model's own method.
        """
        first, self._next = self._next, self._next + len(requests)
        names = [_name(kind, each.args) for each in requests]
        found_before = ((place, self._kept.known(first + place, _to(name))) for place, name in enumerate(names))
        known = {place: row for place, row in found_before if row and row.get("failure") not in PASSING}
        for place, row in known.items():
            failure = Failure(Class(row["failure"]), row["cause"], row["seconds"]) if "failure" in row else None
            self.told[names[place]] = Told(row["seconds"], failure)
            self.cut |= {requests[place].args[0]} if row.get("cut") else set()
        missing = [place for place in range(len(requests)) if place not in known]
        self.resumed += len(known)
        self.asked += len(missing)
        found = {place: _restored(kind, row["answer"]) for place, row in known.items()}
        if missing:
            for place in missing:
                self._places.setdefault(names[place], []).append(first + place)
            self._progress, self._done = Progress(self.what, len(requests), len(known)), len(known)
            self._last = time.perf_counter()
            try:
                found |= dict(zip(missing, ask([requests[place] for place in missing]), strict=True))
                self.flush()
            finally:
                self._progress.close()
                self._progress = None
        return [found[place] for place in range(len(requests))]

    def add_partial(self, kind: str, args: Sequence[Any], answer: Any) -> None:
        """Take an answer that has just come; it is written at the next `flush`."""
        self._take(_name(kind, args), {"answer": answer})

    def failed(self, kind: str, args: Sequence[Any], answer: Any, failure: Failure) -> None:
        """Take what stands for an answer that did not come."""
        row = {"answer": answer, "failure": failure.kind.value, "cause": failure.cause, "seconds": failure.seconds}
        self._take(_name(kind, args), row)
        self.told[_name(kind, args)] = Told(failure.seconds, failure)

    def _take(self, name: tuple[str, ...], row: dict[str, Any]) -> None:
        """A request that is there several times is answered as often."""
        waiting = self._places.get(name)
        if waiting:
            self._rows.append((waiting.pop(0), name, row))
            self._new.add(name)

    def about(self, kind: str, args: Sequence[Any]) -> Told:
        """What is known of a request's answer."""
        return self.told.get(_name(kind, args), Told())

    def flush(self) -> None:
        """Write the answers of a batch; its time is divided by them."""
        if not self._rows:
            return
        now = time.perf_counter()
        seconds = (now - self._last) / len(self._rows)
        for place, name, row in self._rows:
            cut = {"cut": True} if name[1] in self.cut else {}
            self._kept.put(place, _to(name), {"seconds": seconds, **row} | cut)
        for name in self._new:
            self.told.setdefault(name, Told(seconds))
        self._new.clear()
        self._done += len(self._rows)
        self._rows, self._last = [], now
        if self._progress:
            self._progress.at(self._done)

    def close(self) -> None:
        """Close the file."""
        self._kept.close()


def _to(name: tuple[str, ...]) -> str:
    """What else an answer depends on is in the file's name."""
    return digest.text("\x1f".join(name))


def _name(kind: str, args: Sequence[Any]) -> tuple[str, ...]:
    return (kind, *(each if isinstance(each, str) else json.dumps(each, sort_keys=True, default=str) for each in args))


def _restored(kind: str, answer: Any) -> Any:
    return (float(answer[0]), bool(answer[1])) if kind == "loglikelihood" else answer


def plain(value: Any) -> Any:
    """What lm-eval found as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
