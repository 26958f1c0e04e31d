"""The text of a file: its encoding decided before anything is read, never guessed silently; and its lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from mlops_llm.data import packed
from mlops_llm.data.rows import BrokenError, check_encoding
from mlops_llm.errors import UserError

LINE = 256 << 20
"""Characters in a line, or in an element of a JSON array. A line has to be held whole: without a limit a file without line
breaks would fill the memory. The longest honest line met was 30 MB."""
HEAD = 1 << 20
"""Characters looked at to decide what form a file has."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; that of UTF-32 begins with that of UTF-16."""
_CHINESE = ("gb18030", "big5")
_ESCAPED = re.compile("[\udc80-\udcff]")
_SHORTEST = 60
"""Characters beyond ASCII from which charset-normalizer is asked: it called 12 characters of GB18030 `cp949`."""


class Text:
    """The decoded text of a file.

    Bytes that are not UTF-8 become lone surrogates (Python's surrogateescape; UTF-8 itself never gives one) and `sound` is
    False, so that a reader can name the line and go on. Any other encoding ends at its first wrong byte.
    """

    def __init__(self, path: Path, encoding: str, at: packed.At = packed.nobody) -> None:
        """Open a file, look at its first block and decide its encoding; `at` is told the share of it that is read.

        Raises:
            UserError: it cannot be opened, is no text, is empty, or the encoding is unknown or contradicts its first bytes.
        """
        self.path = path
        self.line = 0
        """The line handed out last."""
        self.sound = True
        """False from the first block on that has bytes that are not UTF-8; a line may then have a `flaw`."""
        self.marked = False
        """It begins with a byte order mark."""
        self._bytes = packed.blocks(path, at)
        try:
            head = next(self._bytes, b"")
        except BrokenError as broken:
            raise UserError(broken.problem, str(path), broken.remedy) from broken
        self._refuse_binary(head)
        self.codec, mark = self._decide(head, encoding)
        self._mixed = False  # UTF-8 beyond ASCII was seen
        self._unsound = ""  # the last block with bytes that are not UTF-8
        self._decoded = self._decode(head.removeprefix(mark))
        self._pushed = ""
        self._broken: BrokenError | None = None

    def head(self) -> str:
        """The first megabyte that is not blank, with everything before it; it stays to be read.

        Raises:
            UserError: there is none.
        """
        seen = ""
        try:
            while len(seen) < HEAD or (seen.isspace() and len(seen) < LINE):
                seen += next(self._decoded)
        except StopIteration:
            pass
        except BrokenError as error:
            self._broken = error
        if not seen or seen.isspace():
            broken = self._broken or BrokenError("the file is empty", "give it rows")
            raise UserError(broken.problem, str(self.path), broken.remedy)
        self._pushed = seen
        return seen

    def blocks(self) -> Iterator[str]:
        """The text, about a megabyte at a time.

        Raises:
            BrokenError: the file is cut off or damaged.
        """
        if self._pushed:
            pushed, self._pushed = self._pushed, ""
            yield pushed
        if self._broken:
            raise self._broken
        for block in self._decoded:  # noqa: UP028 (`yield from` would close it with this generator)
            yield block

    def lines(self) -> Iterator[str]:
        """The lines, without their breaks: LF and CRLF (the CR stays), or CR alone where the first block has no LF.

        Raises:
            BrokenError: a line is too long, or the file is cut off or damaged; its line is that of the last good one plus 1.
        """
        parts: list[str] = []
        length, mark = 0, ""
        for block in self.blocks():
            mark = mark or ("\r" if "\r" in block and "\n" not in block else "\n")
            first, *rest = block.split(mark)
            parts.append(first)
            length += len(first)
            if length > LINE:
                raise BrokenError(f"is longer than {LINE >> 20} MB", "is it a file of rows? put each on a line", self.line + 1)
            if not rest:
                continue
            rest.insert(0, "".join(parts))
            last = rest.pop()
            for line in rest:
                self.line += 1
                yield line
            parts, length = [last], len(last)
        if length:
            self.line += 1
            yield "".join(parts)

    def flaw(self, line: str) -> tuple[str, str] | None:
        """What is wrong with the bytes of a line, and what to do; None if they are UTF-8.

        Raises:
            UserError: they show that the whole file is in another encoding.
        """
        found = _ESCAPED.search(line)
        if not found:
            return None
        raw = line.encode("utf-8", "surrogateescape")
        what = f"is not utf-8 (byte {ord(found[0]) - 0xDC00:#04x})"
        if not self._mixed:
            wrong = len(_ESCAPED.findall(self._unsound))
            if wrong > sum(not each.isascii() for each in self._unsound) - wrong:
                raise _refusal(raw, f"line {self.line} {what}", self.path, self._unsound.encode("utf-8", "surrogateescape"))
            self._mixed = True
        guesses = "".join(f"; as {codec} it says '{shown}'" for codec, shown in _readings(raw).items())
        return f"{what}{guesses}", "save the line as UTF-8: others are"

    def _refuse_binary(self, head: bytes) -> None:
        found = packed.sign(head)
        if not found:
            return
        what, remedy = found
        how = packed.packing(self.path)
        if how:
            what, remedy = f"{what} packed with {how}", "unpack it" if what in packed.PACKINGS.values() else remedy
        raise UserError(f"is {what}", str(self.path), remedy)

    def _decide(self, head: bytes, encoding: str) -> tuple[str, bytes]:
        """The codec and the mark to leave out."""
        declared = check_encoding(encoding)
        plain = declared in ("utf-8", "utf-8-sig")
        for mark, codec in _MARKS:
            if head.startswith(mark):
                self.marked = True
                if not plain and not codec.startswith(declared):
                    raise UserError(f"begins with the byte order mark of {codec}", str(self.path), f"read.encoding={codec}")
                return codec, mark
        wide = _wide(head) if plain else ""
        if wide:
            raise UserError(
                f"looks like {wide} without a byte order mark", str(self.path), f"if it is, say so: read.encoding={wide}"
            )
        return "utf-8" if plain else encoding, b""

    def _decode(self, head: bytes) -> Iterator[str]:
        if self.codec == "utf-8":
            yield from self._utf8(head)
            return
        decoder = codecs.getincrementaldecoder(self.codec)()
        lines, block = 1, head
        while True:
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeError as error:
                if isinstance(error, UnicodeDecodeError):
                    lines += error.object[: error.start].decode(self.codec, "replace").count("\n")
                raise UserError(
                    f"line {lines} is not {self.codec}",
                    str(self.path),
                    "name its encoding: read.encoding=…; or save it as UTF-8",
                ) from error
            lines += text.count("\n")
            if text:
                yield text
            if not block:
                return
            block = next(self._bytes, b"")

    def _utf8(self, block: bytes) -> Iterator[str]:
        broken = None
        while True:
            try:
                following = next(self._bytes, b"")
            except BrokenError as error:  # what was unpacked before it is good
                broken, following = error, b""
            final = not following and not broken
            try:
                text, used = codecs.utf_8_decode(block, "strict", final)
                self._mixed = self._mixed or not text.isascii()
            except UnicodeDecodeError:
                text, used = codecs.utf_8_decode(block, "surrogateescape", final)
                self.sound, self._unsound = False, text
            if text:
                yield text
            if broken:
                raise broken
            if not following:
                return
            block = block[used:] + following


def _refusal(raw: bytes, what: str, path: Path, sample: bytes = b"") -> UserError:
    """The line for a file in another encoding: what its bytes would read as, and the setting that confirms it.

    GB18030 accepts Big5 as well, and nothing tells them apart but the words: both are shown.
    """
    found = _readings(raw)
    other = _normalizer(sample or raw)
    if other and other not in found:
        found = {**found, **_readings(raw, (other,))}
    if not found:
        return UserError(what, str(path), "is it a text? save it as UTF-8, or name its encoding: read.encoding=…")
    shown = ", ".join(f"as {codec} it says '{text}'" for codec, text in found.items())
    first, *others = found
    more = f" (or {', '.join(others)})" if others else ""
    return UserError(
        f"{what}; {shown}", str(path), f"if one reads right, say so: read.encoding={first}{more}; or save it as UTF-8"
    )


def _readings(raw: bytes, among: tuple[str, ...] = _CHINESE) -> dict[str, str]:
    """Codec -> a few characters from the first beyond ASCII on, for each codec that takes the bytes."""
    found = {}
    for codec in among:
        try:
            text = codecs.getincrementaldecoder(codec)().decode(raw[:4096])
        except (UnicodeError, LookupError):
            continue
        begin = next((place for place, each in enumerate(text) if not each.isascii()), 0)
        shown = re.split('["\n]', text[begin : begin + 12])[0].strip()
        if shown.isprintable():  # characters for private use are not
            found[codec] = shown
    return found


def _normalizer(sample: bytes) -> str:
    """What charset-normalizer (of the extra `data`) takes the bytes for; empty where it is not there or they are too few."""
    if sum(each > 127 for each in sample[:4096]) < 2 * _SHORTEST:
        return ""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError:
        return ""
    best = from_bytes(sample[: 64 << 10]).best()
    name = best.encoding.replace("_", "-") if best else ""
    return "" if name.startswith(("gb", "cp936", "hz", "big5", "utf-8", "ascii")) else name


def _wide(head: bytes) -> str:
    """UTF-16 without a mark, by its zero bytes: ASCII characters have one on the same side each."""
    sample = head[:4096]
    sides = sample[::2].count(0), sample[1::2].count(0)
    most, least = max(sides), min(sides)
    if most < 4 or most * 20 < len(sample) or least * 10 > most:
        return ""
    return "utf-16-be" if sides[0] > sides[1] else "utf-16-le"
