"""Every row of a file of any format, or of a folder of such files, one after the other: memory does not grow with the file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from mlops_llm import console
from mlops_llm.data import arrays, columnar, delimited, hub, packed
from mlops_llm.data.encoding import Text
from mlops_llm.data.rows import BrokenError, Read, Record, names, renamed
from mlops_llm.errors import UserError

_TEXTS: Mapping[str, Callable[[Text, list[str]], Iterator[Record]]] = {
    ".jsonl": lambda text, _: arrays.any_form(text),
    ".ndjson": lambda text, _: arrays.any_form(text),
    ".json": lambda text, _: arrays.any_form(text),
    ".csv": delimited.table,
    ".tsv": delimited.table,
    ".txt": lambda text, _: delimited.prompts(text),
}
_TABLES: Mapping[str, Callable[[Path, list[str], packed.At], Iterator[Record]]] = {
    ".parquet": columnar.parquet,
    ".arrow": columnar.arrow,
    ".feather": columnar.arrow,
    ".ipc": columnar.arrow,
}
FORMATS = (*_TEXTS, *_TABLES)
ENDINGS = tuple(f"{ending}{packing}" for packing in ("", *packed.PACKINGS) for ending in FORMATS)
"""Endings of dataset files; where several files have one name, the first of them counts."""
_SAME = {".ndjson": ".jsonl", ".feather": ".arrow", ".ipc": ".arrow"}
_SPLITS = re.compile(r"(train|test|validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)


def watched(path: Path, how: Read | None, what: str) -> Iterator[Record]:
    """`records`, with progress for a person who waits for it; `what` says what is done with the rows."""
    reading = console.Reading(f"{what} {path.name}")
    try:
        for number, record in enumerate(records(path, how, reading.share), 1):
            yield record
            if number % 1000 == 0:
                reading.rows(number)
    finally:
        reading.close()


def records(path: Path, how: Read | None = None, at: packed.At = packed.nobody) -> Iterator[Record]:
    """Every row of a file, or of all files of a folder, sorted by name.

    A bad line is a record without a row, and reading goes on with the next where the format has lines (JSON lines, CSV, text);
    elsewhere such a record is the file's last. In a folder the next file follows, and line numbers start again.

    Args:
        path: a file with one of `ENDINGS` (any other is read as JSON), a folder of files of one format, or hf:ORG/NAME.
        how: its encoding, and our fields -> its columns.
        at: told how much of all files is read, as far as that is known.

    Raises:
        UserError: nothing can be read: there is no such file, it is not what its name says, its encoding must be named, it has
            no rows' form, a column is missing.
    """
    how = how or Read()
    files = shards(path)
    for number, file in enumerate(files):
        try:
            yield from renamed(_of_file(file, how, partial(_of_all, at, number, len(files))), how.columns)
        except BrokenError as broken:
            yield Record(broken.line or 1, None, broken.problem, broken.remedy, file.name)


def _of_all(at: packed.At, number: int, files: int, share: float) -> None:
    at((number + share) / files)


def encoding_of(path: Path, how: Read) -> str:
    """The encoding in which a file (of a folder, the first) is read: what its first bytes say, else what `how` says.

    Empty for files that are no texts, and for those that cannot be opened.
    """
    if hub.is_ref(str(path)):
        return ""
    try:
        file = shards(path)[0]
        return "" if _format(file) in _TABLES else Text(file, how.encoding).codec
    except UserError:
        return ""


def shards(path: Path) -> list[Path]:
    """The files of a dataset: itself, or those of a folder in the order of their names.

    Hidden files and those with other endings are passed over; folders within are not looked into.

    Raises:
        UserError: the folder has no dataset files, files of several formats, or several splits, which are to be kept apart.
    """
    if hub.is_ref(str(path)) or not path.is_dir():
        return [path]
    inside = sorted(each for each in path.iterdir() if not each.name.startswith((".", "_")))
    found = [each for each in inside if ending(each) and not each.is_dir()]
    if not found:
        folders = [each.name for each in inside if each.is_dir()]
        raise UserError(
            f"the folder holds no dataset files{f', but folders: {names(folders)}' if folders else ''}",
            str(path),
            "name the folder that holds them" if folders else f"they end in {', '.join(FORMATS)}, also with .gz or .zst",
        )
    formats = Counter(_SAME.get(kind, kind) for kind in map(_format, found))
    if len(formats) > 1:
        counted = ", ".join(f"{count} {kind}" for kind, count in formats.most_common())
        raise UserError(
            f"the folder holds files of several formats ({counted})", str(path), "name one file, or keep one format"
        )
    splits = {match[1].lower() for match in (_SPLITS.match(each.name) for each in found) if match}
    if len(splits) > 1:
        raise UserError(
            f"the folder holds several splits ({', '.join(sorted(splits))})",
            str(path),
            "name one file, or give each split a folder",
        )
    return found


def ending(path: Path) -> str:
    """The one of `ENDINGS` that a file has; empty for any other."""
    lower = path.name.lower()
    return max((each for each in ENDINGS if lower.endswith(each)), key=len, default="")


def _format(path: Path) -> str:
    found = ending(path)
    return next((each for each in FORMATS if found in (each, *(each + packing for packing in packed.PACKINGS))), "")


def _of_file(path: Path, how: Read, at: packed.At) -> Iterator[Record]:
    if hub.is_ref(str(path)):
        return hub.rows(str(path), how)
    kind = _format(path)
    wanted = list(how.columns.values()) if how.columns else []
    if kind in _TABLES:
        return _TABLES[kind](path, wanted, at)
    return _of_text(Text(path, how.encoding, at), _TEXTS.get(kind, _TEXTS[".jsonl"]), wanted)


def _of_text(text: Text, reader: Callable[[Text, list[str]], Iterator[Record]], wanted: list[str]) -> Iterator[Record]:
    try:
        yield from reader(text, wanted)
    except BrokenError as broken:
        yield Record(broken.line or text.line + 1, None, broken.problem, broken.remedy, text.path.name)
