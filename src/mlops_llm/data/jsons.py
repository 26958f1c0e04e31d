"""JSON lines, and a decoder that notices what Python's lets pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mlops_llm.data.encoding import Text
from mlops_llm.data.rows import SHOWN, Record

NESTED = 100
"""Depth to which a row may nest lists and objects. Conversations with tool schemas reach 15; Python, Arrow and Parquet recurse
and give up between 100 and 1,000 levels, some of them by ending the process."""
_REMEDY = "mend or remove the line"
BLANK = " \t\r\n"
"""What JSON allows between values."""


def lines(text: Text) -> Iterator[Record]:
    """Rows of JSON lines; a bad line is a record without a row, and reading goes on."""
    decoder, file = Decoder(), text.path.name
    plain, decode = decoder.plain, decoder.row
    for line in text.lines():
        if not line:
            continue
        good = plain(line)
        if good and text.sound:
            yield Record(text.line, good, "", "", file)
            continue
        if line.isspace():
            continue
        flaw = None if text.sound else text.flaw(line)
        if flaw:
            yield Record(text.line, None, *flaw, file)
            continue
        try:
            row, problem, remedy = decode(line)
        except NotJSONError as error:
            yield Record(text.line, None, str(error), _REMEDY, file)
            continue
        yield Record(text.line, row, problem, remedy, file)


class NotJSONError(ValueError):
    """A text is not JSON; `place` is where that shows, and `cut` says that it may only be incomplete."""

    def __init__(self, what: str, place: int = 0, cut: bool = False) -> None:
        super().__init__(what)
        self.place, self.cut = place, cut


class Decoder:
    """A strict JSON decoder: what Python's lets pass is noticed (two fields of one name, NaN, numbers without end)."""

    def __init__(self) -> None:
        self._flaw = ("", "")
        decoder: Any = json.JSONDecoder(object_pairs_hook=self._pairs, parse_constant=self._constant, parse_float=self._float)
        self._scan = decoder.scan_once

    def plain(self, line: str) -> dict[str, Any] | None:
        """The row of a whole line with which nothing is wrong, as fast as can be; None asks for a closer look."""
        try:
            value, end = self._scan(line, 0)
        except (StopIteration, ValueError, RecursionError):
            return None
        if type(value) is not dict or self._flaw[0] or (end != len(line) and not line[end:].isspace()):
            return None
        for each in value.values():
            if type(each) is dict or type(each) is list:
                return value if line.count("[") + line.count("{") <= NESTED else None
        return value

    def row(self, line: str) -> tuple[dict[str, Any] | None, str, str]:
        """The row of a whole line, or None with a problem and a remedy.

        Raises:
            NotJSONError: it is not JSON.
        """
        begin = len(line) - len(line.lstrip(BLANK)) if line[0] in BLANK else 0
        row, problem, remedy, end = self.value(line, begin)
        if end != len(line) and line[end:].strip(BLANK):
            raise NotJSONError(f"is not JSON (something stands behind the value at column {end + 1})")
        return row, problem, remedy

    def value(self, text: str, begin: int) -> tuple[dict[str, Any] | None, str, str, int]:
        """The row that begins at a place, and where it ends; None with problem and remedy for another value.

        Raises:
            NotJSONError: there is no JSON.
        """
        self._flaw = ("", "")
        value, end = self.anything(text, begin)
        if not isinstance(value, dict):
            return None, f"is a {type(value).__name__}, not an object with fields", 'write {"prompt": …, "response": …}', end
        if self._flaw[0]:
            return None, *self._flaw, end
        if text.count("[", begin, end) + text.count("{", begin, end) > NESTED and _depth(value) > NESTED:
            return None, f"is nested deeper than {NESTED}", "write flatter rows", end
        return value, "", "", end

    def anything(self, text: str, begin: int) -> tuple[Any, int]:
        """Any value.

        Raises:
            NotJSONError: there is no JSON.
        """
        try:
            value, end = self._scan(text, begin)
        except StopIteration as stop:
            place = stop.value
            cut = place + 16 > len(text)  # half a word, such as `tru`
            raise NotJSONError(f"is not JSON (no value at column {_column(text, place)})", place, cut) from None
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated string") or error.pos + 16 > len(text)
            what = error.msg.removesuffix(" at").removesuffix(" starting")
            raise NotJSONError(f"is not JSON ({what} at column {_column(text, error.pos)})", error.pos, cut) from error
        except RecursionError as error:
            raise NotJSONError(f"is nested deeper than {NESTED}", begin) from error
        except ValueError as error:  # a number of more than 4,300 digits
            raise NotJSONError("holds a number with too many digits", begin) from error
        return value, end

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            self._flaw = f"has the field '{twice[:SHOWN]}' twice in one object", "keep one of them"
        return found

    def _constant(self, word: str) -> float:
        self._flaw = f"holds {word}, which is not JSON", "write null, or remove the row"
        return float(word)

    def _float(self, word: str) -> float:
        value = float(word)
        if value in (float("inf"), float("-inf")):
            self._flaw = f"holds a number beyond what a computer counts ({word[:SHOWN]})", "write a smaller one, or a text"
        return value


def _column(text: str, place: int) -> int:
    return place - text.rfind("\n", 0, place)


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted without recursion; up to one more than `NESTED`."""
    level, depth = [value], 0
    while level and depth <= NESTED:
        depth += 1
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
    return depth
