"""The one loop: every request is answered once, whatever fails, and what is answered stands in a file at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlops_llm.console import Progress
from mlops_llm.files import writable
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.concurrent import LostError
from mlops_llm.inference.engine import Class, Failure, Generation

R = TypeVar("R")
Ask = Callable[[Sequence[int]], Iterable[tuple[int, R | Failure]]]
"""From the places that are still to be answered to their results, each as soon as it is there, in any order."""


_PASSING = (Class.server.value, Class.timeout.value)
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

    def put(self, place: int, row: Mapping[str, Any]) -> None:
        """Write a result."""
        self._open.write(json.dumps({"place": place, **row}, ensure_ascii=False) + "\n")
        self._open.flush()

    def close(self) -> None:
        """Close the file."""
        self._open.close()


def scored(
    count: int,
    ask: Ask[R],
    made: Callable[[Mapping[str, Any]], R],
    file: Path,
    *,
    what: str,
    keys: Sequence[str] | None = None,
    answers: Answers | None = None,
    refresh: bool = False,
    note: Callable[[int, R], str] | None = None,
) -> tuple[list[R | Failure], Counts]:
    """Ask for what is in neither the file nor the cache; return all results in order.

    Args:
        count: how many there are.
        ask: see `Ask`; it is not called where nothing is missing.
        made: makes a result (a dataclass) of its fields.
        file: see `Kept`.
        what: what a person is told of the progress.
        keys: of each result in the cache; none where nothing may be taken from it.
        answers: the cache; failures are not kept in it.
        refresh: take nothing from the cache, but keep what is answered.
        note: what is told beside the progress after a result at a place, such as a live mean.

    Raises:
        UserError: no more can be asked (a key is refused, a quota used up, a server gone); what is there stays in the file.
    """
    kept = Kept(file)
    standing = {place: row for place, row in kept.found.items() if place < count and row.get("failure") not in _PASSING}
    results = {place: _read(row, made) for place, row in standing.items()}
    resumed = len(results)
    try:
        if answers and keys and not refresh:
            _remember(results, kept, keys, answers, made)
        cached = len(results) - resumed
        missing = [place for place in range(count) if place not in results]
        if missing:
            _ask(missing, ask, results, kept, count, what, keys, answers, note)
    finally:
        kept.close()
    lost = [place for place in range(count) if place not in results]
    results |= {place: Failure(Class.server, "the engine gave no answer") for place in lost}
    return [results[place] for place in range(count)], Counts(len(missing), cached, resumed)


def _remember(
    results: dict[int, R | Failure],
    kept: Kept,
    keys: Sequence[str],
    answers: Answers,
    made: Callable[[Mapping[str, Any]], R],
) -> None:
    """Take what is missing from the cache, as far as it is there."""
    for place, each in enumerate(keys):
        if place not in results and (row := answers.get(each)):
            results[place] = made(row)
            kept.put(place, row)


def _ask(
    missing: list[int],
    ask: Ask[R],
    results: dict[int, R | Failure],
    kept: Kept,
    count: int,
    what: str,
    keys: Sequence[str] | None,
    answers: Answers | None,
    note: Callable[[int, R], str] | None,
) -> None:
    found = ask(missing)  # opens the model, which is no part of the rate
    progress, failed = Progress(what, count, count - len(missing)), 0
    try:
        for place, result in _unless_nothing(found, missing, results):
            results[place] = result
            kept.put(place, _written(result))
            said = ""
            if isinstance(result, Failure):
                failed += 1
            else:
                if answers and keys:
                    answers.put(keys[place], _written(result))
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
    return made({name: value for name, value in row.items() if name != "place"})


def generation(row: Mapping[str, Any]) -> Generation:
    """Make an answer of its fields."""
    return Generation(**row)
