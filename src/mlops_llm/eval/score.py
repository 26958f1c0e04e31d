"""The one loop: every request is answered once, whatever fails, and what is answered stands in a file at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlops_llm import console
from mlops_llm.console import Progress
from mlops_llm.files import writable
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.concurrent import LostError
from mlops_llm.inference.engine import Class, Failure, Generation

R = TypeVar("R")
Ask = Callable[[Sequence[int]], Iterable[tuple[int, R | Failure]]]
"""From the places that are still to be answered to their results, each as soon as it is there, in any order."""


PASSING = (Class.server.value, Class.timeout.value)
"""Failures that another start asks again."""


@dataclass(frozen=True)
class Counts:
    """Where results came from."""

    asked: int
    """Asked now."""
    cached: int
    """Known from before, to whatever evaluation."""
    resumed: int
    """Of this run, before it was stopped."""


class Kept:
    """The file of results: a line for each, written at once, so that a killed evaluation goes on where it was."""

    def __init__(self, file: Path) -> None:
        """Read what is there; a last line that was cut off is dropped."""
        self.found = dict[int, dict[str, Any]]()
        """Place -> result."""
        writable(file.parent)
        whole = 0
        if file.is_file():
            for line in file.read_bytes().splitlines(keepends=True):
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.found[int(row["place"])] = row
                whole += len(line)
            if whole < file.stat().st_size:
                with file.open("r+b") as cut:
                    cut.truncate(whole)
        self._open = file.open("a", encoding="utf-8", errors="backslashreplace")

    def known(self, place: int, to: str) -> dict[str, Any] | None:
        """The result at a place, where it is one to what is asked there now."""
        row = self.found.get(place)
        return row if row and row.get("to") == to else None

    def put(self, place: int, to: str, row: Mapping[str, Any]) -> None:
        """Write a result.

        Args:
            place: of what was asked.
            to: a digest of all that the result depends on.
            row: its fields.
        """
        self._open.write(json.dumps({"place": place, "to": to, **row}, ensure_ascii=False) + "\n")
        self._open.flush()

    def close(self) -> None:
        """Close the file."""
        self._open.close()


def scored(
    to: Sequence[str],
    ask: Ask[R],
    made: Callable[[Mapping[str, Any]], R],
    file: Path,
    *,
    what: str,
    answers: Answers | None = None,
    refresh: bool = False,
    note: Callable[[int, R], str] | None = None,
) -> tuple[list[R | Failure], Counts]:
    """Ask for what is in neither the file nor the cache; return all results in order.

    Args:
        to: for each, a digest of all that its result depends on, by which it is known in the file and in the cache.
        ask: see `Ask`; it is not called where nothing is missing.
        made: makes a result (a dataclass) of its fields.
        file: see `Kept`.
        what: what a person is told of the progress.
        answers: the cache, where there is to be one; failures are not kept in it.
        refresh: take nothing from the cache, but keep what is answered.
        note: what is told beside the progress after a result at a place, such as a live mean.

    Raises:
        UserError: no more can be asked (a key is refused, a quota used up, a server gone); what is there stays in the file.
    """
    kept = Kept(file)
    known = {place: row for place, each in enumerate(to) if (row := kept.known(place, each))}
    results = {place: _read(row, made) for place, row in known.items() if row.get("failure") not in PASSING}
    resumed, others = len(results), len(kept.found) - len(known)
    if others:
        console.warn(f"{others} {what} of this run belong to what has changed since (rows, weights, settings): asked anew")
    try:
        if answers and not refresh:
            _remember(results, kept, to, answers, made)
        cached = len(results) - resumed
        missing = [place for place in range(len(to)) if place not in results]
        if missing:
            _ask(missing, ask, results, kept, to, what, answers, note)
    finally:
        kept.close()
    lost = [place for place in range(len(to)) if place not in results]
    results |= {place: Failure(Class.server, "the engine gave no answer") for place in lost}
    return [results[place] for place in range(len(to))], Counts(len(missing), cached, resumed)


def _remember(
    results: dict[int, R | Failure],
    kept: Kept,
    to: Sequence[str],
    answers: Answers,
    made: Callable[[Mapping[str, Any]], R],
) -> None:
    """Take what is missing from the cache, as far as it is there."""
    for place, each in enumerate(to):
        if place not in results and (row := answers.get(each)):
            results[place] = made(row)
            kept.put(place, each, row)


def _ask(
    missing: list[int],
    ask: Ask[R],
    results: dict[int, R | Failure],
    kept: Kept,
    to: Sequence[str],
    what: str,
    answers: Answers | None,
    note: Callable[[int, R], str] | None,
) -> None:
    found = ask(missing)  # opens the model, which is no part of the rate
    progress, failed = Progress(what, len(to), len(to) - len(missing)), 0
    try:
        for place, result in _unless_nothing(found, missing, results):
            results[place] = result
            kept.put(place, to[place], _written(result))
            said = ""
            if isinstance(result, Failure):
                failed += 1
            else:
                if answers:
                    answers.put(to[place], _written(result))
                said = note(place, result) if note else ""
            progress.at(len(results), "  ".join(filter(None, [said, f"{failed} failed" if failed else ""])))
    finally:
        progress.close()


def _unless_nothing(
    found: Iterable[tuple[int, R | Failure]], missing: Sequence[int], results: Mapping[int, R | Failure]
) -> Iterator[tuple[int, R | Failure]]:
    """What is asked; where all of it is lost, the last of many are failures like others.

    Raises:
        UserError: see `scored`.
    """
    try:
        yield from found
    except LostError as error:
        if not error.are_all or all(isinstance(each, Failure) for each in results.values()):
            raise
        last = error.failures[-1][1]
        yield from ((place, last) for place in missing if place not in results)


def _written(result: Any) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"failure": result.kind.value, "cause": result.cause, "seconds": result.seconds}
    return dataclasses.asdict(result)


def _read(row: Mapping[str, Any], made: Callable[[Mapping[str, Any]], R]) -> R | Failure:
    if "failure" in row:
        return Failure(Class(row["failure"]), row["cause"], row["seconds"])
    return made({name: value for name, value in row.items() if name not in ("place", "to")})


def generation(row: Mapping[str, Any]) -> Generation:
    """Make an answer of its fields."""
    return Generation(**row)
