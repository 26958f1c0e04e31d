"""JSON arrays, or one object with a list of rows, read element by element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlops_llm.data.encoding import LINE, Text
from mlops_llm.data.jsons import BLANK, Decoder, NotJSONError, lines
from mlops_llm.data.rows import BrokenError, Record, names
from mlops_llm.errors import UserError

ROWS_KEYS = ("rows", "data", "examples", "instances", "train")
"""Under one of these an object may hold its list of rows."""


def any_form(text: Text) -> Iterator[Record]:
    """Rows of a file that may hold an array, lines, or (only where its name ends in .json) one object with a list of rows.

    The list of rows is looked for in the first megabyte.

    Raises:
        UserError: the file is empty, or one object without a list of rows.
    """
    head = text.head()
    begin = len(head) - len(head.lstrip(BLANK))
    if head[begin] == "[":
        return _array(text, begin + 1)
    if head[begin] != "{" or not _named_json(text):
        return lines(text)
    found = _rows_key(head, begin + 1)
    if found:
        return _array(text, found[1], within=found[0])
    first = head[begin:].partition("\n")[0].rstrip()
    if first.endswith(("{", "[", ",", ":")):
        raise UserError(
            f"is one object without a list of rows{_keys_of(head, begin)}",
            str(text.path),
            f"put its rows under '{ROWS_KEYS[0]}', or write one row a line",
        )
    return lines(text)


def _named_json(text: Text) -> bool:
    return text.path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json")


class _Scan:
    """A place in a text that is read in blocks; what lies behind the place is let go."""

    def __init__(self, text: Text, place: int) -> None:
        self._source = text
        self._blocks = text.blocks()
        self.text = next(self._blocks)
        self.place = place
        self._counted, self._line = 0, 1

    @property
    def line(self) -> int:
        """The line of the place."""
        self._line += self.text.count("\n", self._counted, self.place)
        self._counted = self.place
        return self._line

    def next(self) -> str:
        """The next character that is not blank, without passing it; empty at the end of the file."""
        while True:
            text, place = self.text, self.place
            while place < len(text) and text[place] in BLANK:
                place += 1
            self.place = place
            if place < len(text):
                return text[place]
            if not self.more():
                return ""

    def more(self) -> bool:
        """Read on until twice as much lies ahead; False at the end of the file."""
        self._source.line = self.line - 1
        ahead = self.text[self.place :]
        if len(ahead) > LINE:
            raise BrokenError(f"a row is longer than {LINE >> 20} MB", "mend the file", self.line)
        parts, wanted = [ahead], max(1, len(ahead))
        for block in self._blocks:
            parts.append(block)
            wanted -= len(block)
            if wanted <= 0:
                break
        self.text, self.place, self._counted = "".join(parts), 0, 0
        return len(parts) > 1

    def bad(self, end: int) -> tuple[str, str] | None:
        """What is wrong with the bytes up to `end`."""
        if self._source.sound:
            return None
        self._source.line = self.line
        return self._source.flaw(self.text[self.place : end])


def _array(text: Text, place: int, within: str = "") -> Iterator[Record]:
    """Rows of an array whose bracket was passed; `within` is the key of the object that holds it."""
    scan, decoder, file = _Scan(text, place), Decoder(), text.path.name
    due = True  # an element, and not a comma
    comma = False
    while (mark := scan.next()) != "]":
        line = scan.line
        if not mark:
            raise BrokenError("the array is not closed", "the file was cut off: copy it again", line)
        if mark == ",":
            if due:
                yield Record(line, None, "a comma has no row before it", "remove it", file)
            due = comma = True
            scan.place += 1
            continue
        if not due:
            yield Record(line, None, "a comma is missing before the row", "write one", file)
        due = comma = False
        row, problem, remedy, end = _whole(scan, decoder.value)
        flaw = scan.bad(end)
        scan.place = end
        yield Record(line, None, *flaw, file) if flaw else Record(line, row, problem, remedy, file)
    if comma:
        yield Record(scan.line, None, "a comma has no row behind it", "remove it", file)
    scan.place += 1
    if within:
        yield from _rest(scan, decoder, within, file)
    if scan.next():
        what = "object" if within else "array"
        yield Record(scan.line, None, f"something stands behind the {what}", f"one {what} a file", file)


def _whole(scan: _Scan, decode: Any) -> Any:
    """Decode at the place, reading on as long as what is there may only be cut."""
    while True:
        try:
            found = decode(scan.text, scan.place)
            # A number at the end may go on in the next block.
            if found[-1] < len(scan.text) or scan.text[found[-1] - 1] in '}]"' or not scan.more():
                return found
        except NotJSONError as error:
            line, place = scan.line, error.place
            if not error.cut or not scan.more():
                line += scan.text.count("\n", scan.place, max(place, scan.place)) if not error.cut else 0
                remedy = "the file was cut off: copy it again" if error.cut else "mend the file"
                raise BrokenError(str(error), remedy, line) from error


def _rest(scan: _Scan, decoder: Decoder, within: str, file: str) -> Iterator[Record]:
    """What follows the list of rows in its object: nothing that is lost silently."""
    while (mark := scan.next()) == ",":
        scan.place += 1
        if scan.next() != '"':
            break
        key, scan.place = _whole(scan, decoder.anything)
        if scan.next() != ":":
            break
        scan.place += 1
        line, opens = scan.line, scan.next()
        if key in ROWS_KEYS and opens == "[":
            problem = f"holds rows under '{key}' as well as under '{within}'"
            yield Record(line, None, problem, "put them into two files", file)
        _, scan.place = _whole(scan, decoder.anything)
    if mark != "}":
        raise BrokenError("the object is not closed", "the file was cut off: copy it again", scan.line)
    scan.place += 1


def _rows_key(head: str, place: int) -> tuple[str, int] | None:
    """The key of an object's list of rows and the place behind its bracket, if it is a list of objects or empty."""
    decoder = Decoder()
    try:
        while head[place := _skip(head, place)] == '"':
            key, place = decoder.anything(head, place)
            place = _skip(head, place)
            if head[place] != ":":
                return None
            place = _skip(head, place + 1)
            if key in ROWS_KEYS and head[place] == "[" and head[_skip(head, place + 1)] in "{]":
                return key, place + 1
            _, place = decoder.anything(head, place)
            place = _skip(head, place)
            if head[place] != ",":
                return None
            place += 1
    except (ValueError, IndexError):
        pass
    return None


def _skip(text: str, place: int) -> int:
    while text[place] in BLANK:
        place += 1
    return place


def _keys_of(head: str, begin: int) -> str:
    try:
        value, _ = Decoder().anything(head, begin)
    except NotJSONError:
        return ""
    return f" (it has: {names(value)})" if isinstance(value, dict) and value else ""
