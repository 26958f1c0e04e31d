"""Check only the structure of a plain file of JSON lines, about as fast as its JSON can be read.

Blocks of lines in which every row has the fields of its kind, all of them texts, are passed over with a few operations a block;
the rest, usually nothing, is looked at row by row as `validate.check` does.
"""

from __future__ import annotations

import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mlops_llm.data import solutions
from mlops_llm.data.formats import records, watched
from mlops_llm.data.kinds import FIELDS, Kind
from mlops_llm.data.read import Read
from mlops_llm.data.rows import Record, Row
from mlops_llm.data.structure import kind_of_most
from mlops_llm.data.validate import HEAD, Checks, Report, check

_TOGETHER = 64
_SHORT = 2000
"""Bytes from which numpy counts faster."""
_LONGEST = 64 << 20
_ODD = 10_000
"""Odd rows, and a tenth of all, after which skimming is given up."""


class Skimmed(NamedTuple):
    """What skimming leaves."""

    sound: int
    """Rows with which nothing is wrong."""
    characters: list[int]
    """Characters of each field in them."""
    odd: list[tuple[int, bytes]]
    """Lines to look at, with their numbers."""


def structure(path: Path, read: Read, wanted: Kind | None, keep: int) -> Report:
    """Check the structure of a file; the same findings as of `validate.check` without contents.

    Args:
        path: any file of rows; only plain JSON lines in UTF-8 are skimmed.
        read: its encoding and columns.
        wanted: what the rows are for; None tells it from most of the first.
        keep: findings kept of each rule.
    """
    how = Checks(contents=False, keep=keep)
    plain = path.suffix == ".jsonl" and path.is_file() and read.encoding == "utf-8" and not read.columns
    natural, shape = _told(_first(path) if plain else [])
    kind = wanted or natural
    if kind is natural and kind and shape:
        try:
            skimmed = skim(path, shape, kind)
        except _TooLongError:
            skimmed = None
        if skimmed and (report := _with_odd(path, skimmed, shape, kind, how)):
            return report
    return check(watched(path, read, "checking"), wanted, how)


def skim(path: Path, shape: tuple[str, ...], kind: Kind) -> Skimmed | None:
    """Pass over the sound rows of a file; None where too many are odd for that to pay, or orjson is not installed.

    Args:
        path: JSON lines in UTF-8.
        shape: the fields of a sound row in their order: those of the kind.
        kind: what the rows are for; one whose fields are all texts.

    Raises:
        _TooLongError: a line is longer than should be held.
    """
    try:
        from orjson import loads
    except ImportError:
        return None
    places = [shape.index(field) for field in FIELDS[kind]]
    quotes = 4 * len(shape)
    characters = [0] * len(shape)
    odd: list[tuple[int, bytes]] = []
    number = sound = 0
    flawed, strict = _flaws(kind), kind in (Kind.dpo, Kind.grpo)

    def passes(row: Any, line: bytes) -> bool:
        if type(row) is not dict or tuple(row) != shape or _quotes(line) != quotes:
            return False
        try:
            return all(map(str.strip, row.values())) and not flawed(row)
        except TypeError:  # a value that is no text
            return False

    for lines in _lines(path):
        try:
            rows = list(map(loads, lines))
        except ValueError:
            if max(map(len, lines)) == _LONGEST:
                raise _TooLongError from None
            rows = [_loaded(loads, line) for line in lines]
        values = _values(rows, shape)
        if values is None or _quotes(b"".join(lines)) != quotes * len(lines) or (strict and any(map(flawed, rows))):
            kept = []
            for place, (row, line) in enumerate(zip(rows, lines, strict=True), number + 1):
                if passes(row, line):
                    kept.append(row)
                elif not line.isspace():
                    odd.append((place, line.removesuffix(b"\n")))
            rows = kept
            values = list(chain.from_iterable(map(dict.values, rows)))
        for place in range(len(shape)):
            characters[place] += sum(map(len, values[place :: len(shape)]))
        number += len(lines)
        sound += len(rows)
        if len(odd) > max(_ODD, number // 10):
            return None
    return Skimmed(sound, [characters[place] for place in places], odd)


def _values(rows: list[Any], shape: tuple[str, ...]) -> list[str] | None:
    """The values of rows, one row after the other, if all rows have the shape and all values are texts that are not blank."""
    try:
        values = list(chain.from_iterable(map(dict.values, rows)))
        # No row has a field twice, so that the fields in a row tell where each row begins.
        sound = list(chain.from_iterable(rows)) == [*shape] * len(rows) and all(map(str.strip, values))
    except TypeError:  # a row that is no object, a value that is no text
        return None
    return values if sound else None


def _flaws(kind: Kind) -> Callable[[Row], bool]:
    """What else may be wrong with a row of texts."""
    if kind is Kind.dpo:
        return lambda row: row["chosen"].strip() == row["rejected"].strip()
    if kind is Kind.grpo:
        return lambda row: not row["solution"].isdecimal() and bool(solutions.problem(row["solution"]))
    return lambda _: False


def _loaded(loads: Callable[[bytes], Any], line: bytes) -> Any:
    try:
        return loads(line)
    except ValueError:
        return None


def _quotes(text: bytes) -> int:
    """Quotes that begin or end a text. A field that stands twice in a row has more of them than the row that is read of it."""
    if len(text) > _SHORT:
        import numpy as np

        codes = np.frombuffer(text, np.uint8)
        quote = codes == ord('"')
        if b"\\" not in text:
            return int(np.count_nonzero(quote))
        slash = codes == ord("\\")
        if not (slash[:-1] & slash[1:]).any():
            return int(np.count_nonzero(quote) - np.count_nonzero(slash[:-1] & quote[1:]))
    # A backslash before a quote escapes it unless it is escaped itself.
    plain = text.replace(b"\\\\", b"")
    return plain.count(b'"') - plain.count(b'\\"')


def _lines(path: Path) -> Iterator[list[bytes]]:
    """Lines of a file with their breaks, about as many at a time as a processor's cache holds with what is read of them.

    One that is too long comes in pieces.
    """
    with path.open("rb") as file:
        _after_mark(file)
        following = iter(partial(file.readline, _LONGEST), b"")
        while lines := list(islice(following, _TOGETHER)):
            yield lines


def _after_mark(file: BinaryIO) -> None:
    """Pass over a byte order mark."""
    if file.read(len(BOM_UTF8)) != BOM_UTF8:
        file.seek(0)


class _TooLongError(Exception):
    """The careful reader, which has limits, is to be asked."""


def _first(path: Path) -> list[Row]:
    """What can be read of the first rows of a plain file."""
    try:
        from orjson import loads
    except ImportError:
        return []
    rows = (_loaded(loads, line) for line in islice(chain.from_iterable(_lines(path)), HEAD))
    return [row for row in rows if type(row) is dict]


def _told(rows: list[Row]) -> tuple[Kind | None, tuple[str, ...]]:
    """The kind that most of the first rows tell, and the shape of its rows where skimming understands it, else an empty one."""
    kind = kind_of_most(rows)
    if kind not in (Kind.sft, Kind.dpo, Kind.ppo, Kind.grpo):
        return kind, ()
    shape = next((tuple(row) for row in rows if set(row) == set(FIELDS[kind])), ())
    return kind, shape


def _with_odd(path: Path, skimmed: Skimmed, shape: tuple[str, ...], kind: Kind, how: Checks) -> Report | None:
    """The report on all rows, once the odd ones are looked at; None if they cannot be told apart as lines."""
    found = list(_read_again(path, skimmed))
    if len(found) != len(skimmed.odd):
        return None
    numbered = (record._replace(line=number) for record, (number, _) in zip(found, skimmed.odd, strict=True))
    report = check(numbered, kind, how, natural=kind)
    report.rows += skimmed.sound
    report.read += skimmed.sound
    report.sound += skimmed.sound
    report.fields.update(dict.fromkeys(shape, skimmed.sound))
    report.characters.update(dict(zip(FIELDS[kind], skimmed.characters, strict=True)))
    return report


def _read_again(path: Path, skimmed: Skimmed) -> Iterator[Record]:
    """The odd lines, read by the careful reader, which knows what to say of each.

    It tells a line with wrong bytes from a file in another encoding by the text around it: the first line that is sound and
    beyond ASCII stands before them.
    """
    if not skimmed.odd:
        return
    numbers = {number for number, _ in skimmed.odd}
    with path.open("rb") as file:
        _after_mark(file)
        first = next((line for number, line in enumerate(file, 1) if number not in numbers and not line.isascii()), b"")
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        again.write_bytes(first + b"".join(line + b"\n" for _, line in skimmed.odd))
        yield from islice(records(again), bool(first), None)
