"""What datasets there are: files that somebody dropped in, and versions in the record."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm.data import ref
from mlops_llm.data.folders import here, inside, shipped
from mlops_llm.data.identity import Identity, identify
from mlops_llm.data.read import raw_digest
from mlops_llm.files import cache_folder, write_text

if TYPE_CHECKING:
    from mlops_llm.tracking.datasets import Registered


@dataclass(frozen=True)
class Entry:
    """A line of the list."""

    name: str
    kind: str
    rows: int
    bytes: int
    version: str
    """Label of the current version; with `*` where the file differs from it; empty where nothing is registered."""
    description: str
    changed: float
    """Unix time in seconds of the file's last change, or of the current version."""
    where: str
    """`datasets/`, `shipped` or `record`."""
    problem: str = ""
    canonical: str = ""
    """Digest of the rows."""
    ability: str = ""
    """What an evaluation set asks for."""
    method: tuple[str, ...] = ()
    """How an evaluation set is scored where nobody says how."""


def entries() -> list[Entry]:
    """Everything in ./datasets, what ships, and what is registered, by name; unlisted datasets are left out."""
    known = _registered()
    cache = _Cache()
    found: dict[str, Entry] = {}
    for folder, where in ((here(), "datasets/"), (shipped(), "shipped")):
        for called, path in inside(folder).items():
            registered = called in known and where == "shipped"  # without a file of its own the name is its current version
            if called not in found and not registered:
                found[called] = _of_file(called, path, where, cache.identity(path), known.get(called))
    cache.save()
    for each in known.values():
        current = each.current
        if each.name not in found and current:
            description = each.description or current.description
            found[each.name] = Entry(
                each.name,
                current.kind,
                current.rows,
                current.bytes,
                current.label,
                description,
                current.created / 1000,
                "record",
                canonical=current.canonical,
                ability=current.ability,
                method=current.method,
            )
    unlisted = {each.name for each in known.values() if not each.listed}
    return sorted((entry for entry in found.values() if entry.name not in unlisted), key=lambda each: each.name)


def _of_file(called: str, path: Path, where: str, facts: Identity, known: Registered | None) -> Entry:
    size, changed = _size_and_change(path)
    current = known.current if known else None
    if current and current.source and facts.canonical != current.canonical and raw_digest(path, ()) == current.source:
        # Read with settings that the file alone does not tell.
        facts = Identity(current.kind, current.rows, current.canonical)
    version = current.label + ("" if current.canonical == facts.canonical else "*") if current else ""
    description = (known.description if known else "") or (current.description if current else "")
    return Entry(
        called,
        facts.kind,
        facts.rows,
        size,
        version,
        description,
        changed / 1e9,
        where,
        facts.problem,
        facts.canonical,
        current.ability if current else "",
        current.method if current else (),
    )


def _registered() -> dict[str, Registered]:
    from mlops_llm.tracking import datasets

    store = ref.record()
    return {each.name: each for each in datasets.all_registered(store)} if store else {}


class _Cache:
    """What files are that did not change: same place, size and time of change mean same content."""

    def __init__(self) -> None:
        self._file = cache_folder() / "catalog.json"
        self._known: dict[str, Any] = {}
        self._changed = False
        if self._file.is_file():
            try:
                self._known = json.loads(self._file.read_text("utf-8"))
            except ValueError:
                self._known = {}  # a broken cache is an empty one

    def identity(self, path: Path) -> Identity:
        """What a file is, read only if it is new or changed."""
        mark = _mark(path)
        kept = self._known.get(str(path))
        if kept and kept["mark"] == mark:
            return Identity(**kept["identity"])
        found = identify(path)
        self._known[str(path)] = {"mark": mark, "identity": dataclasses.asdict(found)}
        self._changed = True
        return found

    def save(self) -> None:
        """Keep what was learned."""
        if self._changed:
            write_text(self._file, json.dumps(self._known, ensure_ascii=False))


def _mark(path: Path) -> list[Any]:
    """What changes with a file's content, or with that of any file of a folder."""
    files = [each for each in sorted(path.iterdir()) if each.exists()] if path.is_dir() else [path]
    states = [each.stat() for each in files]
    marks = [(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino) for state in states]
    return [list(each) for each in marks]


def _size_and_change(path: Path) -> tuple[int, int]:
    """Bytes, and the time of the last change in nanoseconds; of a folder, those of its files."""
    states = [each.stat() for each in sorted(path.iterdir()) if each.exists()] if path.is_dir() else [path.stat()]
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
