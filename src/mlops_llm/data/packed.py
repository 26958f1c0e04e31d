"""The bytes of a file, unpacked in blocks: what is no file, what is not what its name says, and archives that explode."""

from __future__ import annotations

import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mlops_llm.data.rows import BrokenError
from mlops_llm.errors import UserError, first_line

BLOCK = 1 << 20
"""Bytes read and unpacked at a time: memory does not grow with the file."""
FREE = 16 << 20
"""Unpacked bytes at which nobody asks how well they were packed: less than a second of work."""
RATIO = 800
"""How many times its packed size a file may unpack to. Texts reach 3 to 20, rows that differ in nothing but a number 150 (gzip)
to 400 (zstd); a bomb 1,000 (the most that gzip can do) to 1,000,000."""
TOTAL = 1 << 40
"""Bytes that a packed file may unpack to, whatever the ratio: above what one machine reads in a day."""
At = Callable[[float], None]
"""Told how much of a file is read, from 0 to 1."""


def nobody(share: float) -> None:
    """Nobody wants to know."""


PACKINGS = {".gz": "gzip", ".zst": "zstd"}
_SIGNS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip", "add .gz to its name"),
    (b"\x28\xb5\x2f\xfd", "zstd", "add .zst to its name"),
    (b"PK\x03\x04", "a zip archive (or an Excel file)", "unpack it (from Excel, save as CSV UTF-8)"),
    (b"BZh91AY", "bzip2", "unpack it, or pack it with gzip"),
    (b"\xfd7zXZ", "xz", "unpack it, or pack it with gzip"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!\x1a", "a rar archive", "unpack it"),
    (b"PAR1", "Parquet", "end its name in .parquet"),
    (b"ARROW1", "Arrow", "end its name in .arrow"),
    (b"FEA1", "the first form of Feather", "write it again as Arrow or Parquet"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "save it as CSV UTF-8"),
    (b"%PDF-", "a PDF", "save its text as .txt"),
    (b"SQLite format 3", "an SQLite database", "export its table as CSV"),
    (b"\x89PNG", "a picture", "name a file of rows"),
    (b"\xff\xd8\xff", "a picture", "name a file of rows"),
    *((b"\x80" + bytes([number]), "a Python pickle, which is never opened (it can run anything)", "save it as JSON lines")
      for number in range(2, 6)),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (b"<!DOCTYPE", "a web page, not data", "download the file itself"),
    (b"<html", "a web page, not data", "download the file itself"),
)  # fmt: skip


def packing(path: Path) -> str:
    """How a file is packed by its name: `gzip`, `zstd` or nothing."""
    return PACKINGS.get(path.suffix.lower(), "")


def check(path: Path) -> None:
    """Check that there is a file with something in it.

    Raises:
        UserError: there is none, or it is a folder, device, pipe or socket, or empty.
    """
    try:
        state = path.stat()
    except FileNotFoundError as error:
        broken = path.is_symlink()
        raise UserError(
            "is a link to a file that is not there" if broken else "there is no such file", str(path), "check the path"
        ) from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", str(path), "name the file itself") from error
    kind = stat.S_IFMT(state.st_mode)
    if kind != stat.S_IFREG:
        raise UserError(f"is {_OTHERS.get(kind, 'a device')}, not a file", str(path), "name a file")
    if not state.st_size:
        raise UserError("the file is empty", str(path), "give it rows")


_OTHERS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def sign(head: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes, and what to do if text was wanted; None for anything that may be text."""
    return next(((what, remedy) for mark, what, remedy in _SIGNS if head.startswith(mark)), None)


def blocks(path: Path, at: At = nobody) -> Iterator[bytes]:
    """The bytes of a file, unpacked, at most `BLOCK` at a time; `at` is told the share of the file that is read.

    Raises:
        UserError: it cannot be opened, or is not packed as its name says; from the first block on only:
        BrokenError: it is cut off, damaged, or unpacks to more than the limits.
    """
    check(path)
    how, size = packing(path), path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(32)
            if how:
                _check_packed(head, how, path)
            file.seek(0)
            if not how:
                while block := file.read(BLOCK):
                    at(file.tell() / size)
                    yield block
                return
            done, limit = 0, max(FREE, RATIO * size)
            for block in _gunzip(file) if how == "gzip" else _unzstd(file):
                done += len(block)
                if done > min(limit, TOTAL):
                    raise BrokenError(
                        f"unpacks to over {RATIO} times its size (a bomb?)" if limit < TOTAL else "unpacks to over 1 TB",
                        "if that is right, unpack it yourself and name the unpacked file",
                    )
                at(file.tell() / size)
                yield block
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or first_line(error)})", str(path)) from error


def _check_packed(head: bytes, how: str, path: Path) -> None:
    found = sign(head)
    if found and found[0] == how:
        return
    if found:
        raise UserError(f"is {found[0]}, not {how} as its name says", str(path), "unpack it, or give it the right ending")
    if head.lstrip()[:1] in (b"{", b"[") or head.isascii():
        raise UserError(f"is not packed with {how} as its name says", str(path), f"take {path.suffix} off its name")
    raise UserError(f"is not {how} as its name says", str(path), "copy or pack it again")


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    """Unpack gzip, which may be several streams one after the other."""
    unpack = zlib.decompressobj(wbits=31)
    packed = b""
    try:
        while packed := packed or file.read(BLOCK):
            if unpack.eof:
                packed = packed.lstrip(b"\0")  # tar and tape pad with zeros
                if not packed:
                    continue
                unpack = zlib.decompressobj(wbits=31)
            block = unpack.decompress(packed, BLOCK)
            packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
            if block:
                yield block
    except zlib.error as error:
        raise BrokenError(f"is damaged within the packed data ({first_line(error)})", "copy or pack it again") from error
    if not unpack.eof:
        raise BrokenError("is cut off within the packed data", "copy or pack it again")


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    import pyarrow as pa

    stream = pa.CompressedInputStream(file, "zstd")
    try:
        # Small reads, because what was unpacked before an error within a read is lost.
        while block := stream.read(BLOCK // 16):
            yield block
    except OSError as error:
        if "Truncated" in str(error):
            raise BrokenError("is cut off within the packed data", "copy or pack it again") from error
        raise BrokenError("is damaged within the packed data", "copy or pack it again") from error


@contextmanager
def seekable(path: Path) -> Iterator[BinaryIO]:
    """A file whose every place can be read: itself, or a temporary one with its unpacked bytes.

    Raises:
        UserError: see `blocks`; here also where the packed data are cut off or damaged, as nothing of them can be used.
    """
    check(path)
    if not packing(path):
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        try:
            for block in blocks(path):
                file.write(block)
        except BrokenError as broken:
            raise UserError(broken.problem, str(path), broken.remedy) from broken
        file.seek(0)
        yield file
