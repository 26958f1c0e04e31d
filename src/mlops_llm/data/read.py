"""Files of rows: JSON lines, JSON arrays, CSV, each also gzipped; and how a person names them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.component import near
from mlops_llm.errors import UserError

Row = dict[str, Any]
ENDINGS = (".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")


@dataclass
class Read:
    """How to read a foreign file."""

    encoding: str = "utf-8"
    """Text encoding of the file."""
    columns: Any = None
    """Our field -> the file's column, e.g. 'read.columns={prompt:q,response:a}' (in quotes); known forms need none."""

    def __post_init__(self) -> None:
        """Check the mapping."""
        good = self.columns is None or (
            isinstance(self.columns, Mapping) and all(isinstance(each, str) for each in self.columns.values())
        )
        if not good:
            raise UserError(f"is {self.columns!r}", "read.columns", "write 'read.columns={prompt:COLUMN,response:COLUMN}'")


@dataclass(frozen=True)
class Source:
    """The rows of a file, each with the line it begins on."""

    name: str
    path: Path
    version: str
    """Version label, or the path."""
    rows: list[Row]
    lines: list[int]
    raw: str
    """Digest of the file's bytes."""

    @property
    def canonical(self) -> str:
        """Digest of all rows."""
        return digest.canonical(self.rows)

    def where(self, row: int) -> str:
        """Name a row for a person."""
        return f"{self.path.name} line {self.lines[row]}"


def find(ref: str) -> Path:
    """Find the file of a dataset ref: a path, or the name of a file in ./datasets or among those that ship.

    Raises:
        UserError: there is none; near names are given.
    """
    direct = Path(ref).expanduser()
    if direct.is_file():
        return direct.absolute()
    folders = [Path.cwd() / "datasets", shipped()]
    for folder in folders:
        for ending in ("", *ENDINGS):
            if (folder / f"{ref}{ending}").is_file():
                return (folder / f"{ref}{ending}").absolute()
    if direct.is_dir():
        raise UserError("is a folder, not a dataset", ref, "name a file")
    names = {name(path) for folder in folders if folder.is_dir() for path in folder.iterdir() if path.name.endswith(ENDINGS)}
    raise UserError(f"there is no such dataset{near(ref, names)}", ref, f"there are: {', '.join(sorted(names)) or 'none'}")


def shipped() -> Path:
    """The datasets that ship: datasets/ of a checkout, or the copy in the wheel."""
    checkout = Path(__file__).parents[3] / "datasets"
    return checkout if checkout.is_dir() else Path(str(resources.files("mlops_llm") / "_datasets"))


def name(path: Path) -> str:
    """A dataset's name: its file name without ending."""
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.stem


def read(ref: str, how: Read | None = None) -> Source:
    """Read a dataset.

    Raises:
        UserError: it is missing, empty, not in the encoding, or a line is no row; file and line are named.
    """
    how = how or Read()
    path = find(ref)
    try:
        content = path.read_bytes()
        body = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot be read ({error})", str(path)) from error
    text = _decoded(body, how.encoding, path)
    if not text.strip():
        raise UserError("the file is empty", str(path), "give it rows")
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".csv"):
        rows, lines = _csv(text, path)
    elif text.lstrip()[0] == "[":
        rows, lines = _array(text, path)
    else:
        rows, lines = _lines(text, path)
    if not rows:
        raise UserError("the file holds no rows", str(path), "give it rows")
    if how.columns:
        rows = [_renamed(row, how.columns, f"{path.name} line {line}") for row, line in zip(rows, lines, strict=True)]
    return Source(name(path), path, str(path), rows, lines, digest.raw(path))


def _decoded(body: bytes, encoding: str, path: Path) -> str:
    try:
        return body.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise UserError(f"unknown encoding '{encoding}'", "read.encoding", "for Chinese files try gb18030") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"line {line} is not {encoding} (byte {error.object[error.start]:#04x})",
            str(path),
            "save it as UTF-8, or name its encoding, e.g. read.encoding=gb18030",
        ) from error


def _lines(text: str, path: Path) -> tuple[list[Row], list[int]]:
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_row(line, f"{path.name} line {number}"))
            lines.append(number)
    return rows, lines


def _row(line: str, where: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"is not JSON ({error})", where, "mend or remove the line") from error
    if not isinstance(value, dict):
        raise UserError(f"is a {type(value).__name__}, not an object with fields", where, 'write {"prompt": …, "response": …}')
    return value


def _array(text: str, path: Path) -> tuple[list[Row], list[int]]:
    """Read an array element by element, so that each keeps its line."""
    decoder = json.JSONDecoder()
    place = text.index("[") + 1
    rows: list[Row] = []
    lines: list[int] = []
    line, counted = 1, 0
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        line, counted = line + text.count("\n", counted, place), place
        if place >= len(text):
            raise UserError(f"the array is not closed (line {line})", str(path), "the file was cut off: copy it again")
        if text[place] == "]":
            if text[place + 1 :].strip():
                raise UserError(f"something stands behind the array (line {line})", str(path), "one array a file")
            return rows, lines
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError as error:
            raise UserError(f"is not JSON ({error})", str(path), "mend the file") from error
        if not isinstance(value, dict):
            raise UserError(f"is a {type(value).__name__}, not an object with fields", f"{path.name} line {line}")
        rows.append(value)
        lines.append(line)


def _csv(text: str, path: Path) -> tuple[list[Row], list[int]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows, lines = [], []
    try:
        for row in reader:
            # A row may run over several lines, and blank ones may come before it.
            begin = reader.line_num - sum(str(cell).count("\n") for cell in row.values() if cell)
            if None in row or None in row.values():
                raise UserError("has not as many cells as the header", f"{path.name} line {begin}", "mend the line")
            rows.append(dict(row))
            lines.append(begin)
    except csv.Error as error:
        raise UserError(f"is not CSV ({error})", f"{path.name} line {reader.line_num}") from error
    return rows, lines


def _renamed(row: Row, columns: Mapping[str, str], where: str) -> Row:
    for theirs in columns.values():
        if theirs not in row:
            raise UserError(f"has no column '{theirs}'{near(theirs, row)}", where, f"it has: {', '.join(row)}")
    return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}
