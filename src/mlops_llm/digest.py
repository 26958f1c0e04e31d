"""Content identity over every row and nested value, and over every tensor.

All digests are SHA-256 in hex (64 characters).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def raw(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text(value: str) -> str:
    """Digest of a text's UTF-8 bytes."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def row(value: Mapping[str, Any]) -> str:
    """Digest of one row: every nested value, keys sorted, so key order does not count."""
    return text(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str))


def canonical(rows: Iterable[Mapping[str, Any]]) -> str:
    """Digest of rows in their order; file format, white space and key order do not count."""
    total = hashlib.sha256()
    for each in rows:
        total.update(bytes.fromhex(row(each)))
    return total.hexdigest()


def seen(encoded: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Digest of what a model is trained on: token ids and labels of each row, in order.

    Args:
        encoded: pairs (ids, labels), each of the row's length; labels use -100 where nothing is learned.
    """
    total = hashlib.sha256()
    for ids, labels in encoded:
        total.update(struct.pack(f"<q{len(ids)}i{len(labels)}i", len(ids), *ids, *labels))
    return total.hexdigest()


def weights(folder: Path) -> str:
    """Digest of the tensors in a folder's safetensors files: name, dtype, shape and bytes of each, sorted by name.

    Independent of file layout: the same tensors in one file or ten give the same digest.

    Raises:
        FileNotFoundError: the folder holds no safetensors file.
        ValueError: a file's header cannot be read or points beyond its end.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(folder)
    tensors = {name: (file, *place) for file in files for name, place in tensor_places(file).items()}
    total = hashlib.sha256()
    for name in sorted(tensors):
        file, dtype, shape, start, stop = tensors[name]
        total.update(f"{name}\0{dtype}\0{shape}\0".encode())
        with file.open("rb") as handle:
            handle.seek(start)
            left = stop - start
            while left:
                block = handle.read(min(_BLOCK, left))
                if not block:
                    raise ValueError(f"{file.name} ends within tensor {name}")
                total.update(block)
                left -= len(block)
    return total.hexdigest()


def is_of(folder: Path, wanted: str | None) -> bool:
    """Whether a folder's weights have a digest; what cannot be read has none."""
    try:
        return bool(wanted) and weights(folder) == wanted
    except (OSError, ValueError, TypeError, OverflowError):
        return False


def tensor_places(file: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Read a safetensors header: name -> (dtype, shape, first byte, end byte) within the file.

    Raises:
        ValueError: the header cannot be read; what it says of bytes that are not there is not looked at.
    """
    with file.open("rb") as handle:
        head = handle.read(8)
        if len(head) < 8:
            raise ValueError(f"{file.name} has no header")
        (length,) = struct.unpack("<Q", head)
        if length > file.stat().st_size:
            raise ValueError(f"{file.name} has no whole header")
        try:
            header = json.loads(handle.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file.name} has a header that is no JSON") from error
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} has no header of tensors")
    header.pop("__metadata__", None)
    base = 8 + length
    try:
        return {
            name: (item["dtype"], tuple(item["shape"]), base + item["data_offsets"][0], base + item["data_offsets"][1])
            for name, item in header.items()
        }
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file.name} has a header that tells no places") from error
