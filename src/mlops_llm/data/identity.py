"""What a file of rows is, read once from end to end without keeping its rows: kind, count and digests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import digest
from mlops_llm.data import hub
from mlops_llm.data.formats import watched
from mlops_llm.data.kinds import infer
from mlops_llm.data.read import Read, raw_digest
from mlops_llm.data.rows import Row
from mlops_llm.errors import UserError


@dataclass(frozen=True)
class Identity:
    """A file's rows in a few words."""

    kind: str
    """Empty where it cannot be told."""
    rows: int
    """Rows that can be read."""
    canonical: str
    """Digest of the rows; empty where one cannot be read."""
    problem: str = ""
    """What the first row that cannot be read lacks, or why the file cannot be."""


def identify(path: Path, how: Read | None = None) -> Identity:
    """Read a file or folder of rows; memory does not grow with it."""
    rows, kind, problem = 0, "", ""

    def sound() -> Iterator[Row]:
        nonlocal rows, kind, problem
        for record in watched(path, how, "taking the digest of"):
            if record.row is None:
                said = f"{record.where}: {record.problem}"
                problem = problem or said
                continue
            rows += 1
            if not kind and (found := infer(record.row)):
                kind = found.name
            yield record.row

    try:
        canonical = digest.canonical(sound())
    except UserError as error:
        return Identity(kind, rows, "", str(error))
    return Identity(kind, rows, "" if problem else canonical, problem)


def digests(path: Path, how: Read | None = None) -> dict[str, str]:
    """`raw` and `canonical` of a file or folder; no `canonical` where a row cannot be read."""
    if not (hub.is_ref(str(path)) or path.is_dir() or path.is_file()):
        return {}  # a device or a pipe has no end
    canonical = identify(path, how).canonical
    raw = canonical if hub.is_ref(str(path)) else raw_digest(path, ())
    return {"raw": raw, **({"canonical": canonical} if canonical else {})}
