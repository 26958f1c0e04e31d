"""Datasets as a whole: how a person names them, and all their rows in memory; the first bad row refuses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import digest
from mlops_llm.data import hub
from mlops_llm.data.delimited import AS_JSON
from mlops_llm.data.folders import find, name, shipped
from mlops_llm.data.formats import ENDINGS, shards, watched
from mlops_llm.data.rows import Read, Record, Row, place
from mlops_llm.errors import UserError
from mlops_llm.record import DatasetInput

__all__ = ["AS_JSON", "ENDINGS", "Read", "Row", "Source", "find", "name", "read", "read_path", "shipped"]


@dataclass(frozen=True)
class Source:
    """The rows of a file, or of a folder of files, each with the line it begins on."""

    name: str
    path: Path
    version: str
    """Version label, or the path."""
    rows: list[Row]
    lines: list[int]
    """Numbers start again with every file of a folder."""
    raw: str
    """Digest of the file's bytes; of a folder, of its files' digests in order; on the hub, of the rows."""
    files: tuple[str, ...] = ()
    """In a folder: the name of each row's file; on the hub the ref."""
    translated: bool = False
    """Settings (columns, encoding) were needed to read the rows: the file alone does not give them."""

    @property
    def canonical(self) -> str:
        """Digest of all rows."""
        return digest.canonical(self.rows)

    @property
    def digests(self) -> dict[str, str]:
        """`raw` and `canonical`."""
        return {"raw": self.raw, "canonical": self.canonical}

    def as_input(self, context: str = "dataset") -> DatasetInput:
        """All rows as the record names them."""
        return DatasetInput(self.name, self.version, str(self.path), context, len(self.rows), self.digests)

    def where(self, row: int) -> str:
        """Name a row for a person."""
        return place(self.files[row] if self.files else self.path.name, self.lines[row])


def read(ref: str, how: Read | None = None) -> Source:
    """Find a dataset and read all of it.

    Raises:
        UserError: it is missing, empty, not in the encoding, or a line is no row; file and line are named.
    """
    return read_path(find(ref), how)


def read_path(path: Path, how: Read | None = None) -> Source:
    """Read all rows of what `find` gives.

    Raises:
        UserError: see `read`.
    """
    rows, lines, files = _all(watched(path, how, "reading"), str(path))
    one = not path.is_dir() and not hub.is_ref(str(path))
    translated = how is not None and how != Read()
    return Source(name(path), path, str(path), rows, lines, raw_digest(path, rows), () if one else tuple(files), translated)


def raw_digest(path: Path, rows: Iterable[Row]) -> str:
    """Digest of a file's bytes; of a folder, of its files' digests in order; on the hub, of the rows."""
    if hub.is_ref(str(path)):
        return digest.canonical(rows)
    if path.is_dir():
        return digest.text("\n".join(map(digest.raw, shards(path))))
    return digest.raw(path)


def _all(found: Iterable[Record], where: str) -> tuple[list[Row], list[int], list[str]]:
    rows, lines, files = list[Row](), list[int](), list[str]()
    for record in found:
        if record.row is None:
            raise UserError(record.problem, record.where, record.remedy)
        rows.append(record.row)
        lines.append(record.line)
        files.append(record.file)
    if not rows:
        raise UserError("the file holds no rows", where, "give it rows")
    return rows, lines, files
