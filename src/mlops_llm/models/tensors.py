"""Weights in safetensors files, one tensor at a time."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from mlops_llm import digest
from mlops_llm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 24
_AHEAD = 1 << 26
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""safetensors' names of number formats -> torch's."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
          "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8}  # fmt: skip
"""Of a number, in each format that safetensors knows and that is not smaller than a byte."""
_CODES = {name: code for code, name in DTYPES.items()}


@dataclass(frozen=True)
class Shape:
    """What a tensor is, without its numbers."""

    dtype: str
    """As safetensors calls it: `BF16`."""
    shape: tuple[int, ...]
    bytes: int


class Tensors:
    """The tensors of a model's folder, in one file or many. Nothing stays in memory: files are read, not mapped."""

    def __init__(self, folder: Path, stem: str = "", *, passing: bool = False) -> None:
        """Read the headers of a folder's safetensors files.

        Args:
            folder: of the model.
            stem: what the files' names begin with; empty takes all.
            passing: a tensor that was read is valid until the next one is, which takes its memory: new memory for each costs as
                much as reading it.

        Raises:
            UserError: a file is cut off or no safetensors file, or two files hold one tensor.
        """
        self._places: dict[str, tuple[Path, str, tuple[int, ...], int, int]] = {}
        self._open: dict[Path, BinaryIO] = {}
        self.folder = folder
        self._passing = passing
        self._room: Tensor | None = None
        for file in sorted(folder.glob(f"{stem}*.safetensors")):
            for name, place in places(file).items():
                if name in self._places:
                    raise UserError(f"holds {name}, as {self._places[name][0].name} does", str(file), "copy the weights again")
                self._places[name] = (file, *place)

    @property
    def names(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._places)

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._places

    def shape(self, name: str) -> Shape:
        """What a tensor is."""
        _, dtype, shape, start, stop = self._places[name]
        return Shape(dtype, shape, stop - start)

    @property
    def shapes(self) -> dict[str, Shape]:
        """What all are, sorted by name."""
        return {name: self.shape(name) for name in self.names}

    @property
    def kinds(self) -> dict[str, int]:
        """Number format -> bytes stored in it."""
        found: dict[str, int] = {}
        for each in self.shapes.values():
            found[each.dtype] = found.get(each.dtype, 0) + each.bytes
        return found

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored; the memory is its own, or that of the one before.

        Raises:
            UserError: the file ends within it.
        """
        import torch

        file, dtype, shape, start, stop = self._places[name]
        if start == stop:
            return torch.empty(shape, dtype=getattr(torch, DTYPES[dtype]))
        buffer = self._buffer(stop - start)
        view = memoryview(buffer.numpy())
        handle = self._open.get(file) or self._open.setdefault(file, file.open("rb", buffering=0))
        handle.seek(start)
        done = 0
        while done < len(view):
            count = handle.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise UserError(f"ends within tensor {name}", str(file), "copy it again")
            done += count
        if hasattr(os, "posix_fadvise"):
            # The next tensor by name is mostly the next in the file: the disk works while this one is merged.
            os.posix_fadvise(handle.fileno(), stop, _AHEAD, os.POSIX_FADV_WILLNEED)
        return buffer.view(getattr(torch, DTYPES[dtype])).reshape(shape)

    def _buffer(self, size: int) -> Tensor:
        import torch

        if not self._passing:
            return torch.empty(size, dtype=torch.uint8)
        if self._room is None or len(self._room) < size:
            self._room = None  # before the larger one is there
            self._room = torch.empty(size, dtype=torch.uint8)
        return self._room[:size]

    def close(self) -> None:
        """Close the files."""
        self._room = None
        for handle in self._open.values():
            handle.close()
        self._open.clear()

    def __enter__(self) -> Tensors:
        """Give itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the files."""
        self.close()


def places(file: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """As `digest.tensor_places`, of a file that is as long as its header says, each byte of which belongs to one tensor.

    Raises:
        UserError: it is cut off, or no safetensors file, or its header says what cannot be.
    """
    try:
        found = digest.tensor_places(file)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError("is no whole safetensors file", str(file), "copy it again") from error
    for name, place in found.items():
        if why := _unsound(*place):
            raise UserError(f"tensor {name} {why}", str(file), _MADE)
    with file.open("rb") as handle:
        begin = 8 + int.from_bytes(handle.read(8), "little")
    end = max((stop for *_, stop in found.values()), default=begin)
    if min((start for _, _, start, _ in found.values()), default=begin) != begin or file.stat().st_size > end:
        raise UserError("holds bytes that belong to no tensor", str(file), _MADE)
    missing = end - file.stat().st_size
    if missing > 0:
        last = max(found, key=lambda name: found[name][3])
        raise UserError(f"is cut off: {missing} bytes are missing (tensor {last})", str(file), "copy it again")
    ordered = sorted(found, key=lambda name: found[name][2:])
    for before, after in pairwise(ordered):
        if found[after][2] != found[before][3]:
            fault = "overlap" if found[after][2] < found[before][3] else "leave bytes between them that belong to neither"
            raise UserError(f"tensors {before} and {after} {fault}", str(file), _MADE)
    return found


_MADE = "it was not made by safetensors: take it from somewhere else"


def _unsound(dtype: Any, shape: tuple[Any, ...], start: Any, stop: Any) -> str:
    """What is wrong with a tensor's line in a header; empty where nothing is."""
    numbers = [*shape, start, stop]
    if not all(type(each) is int and 0 <= each < 1 << 63 for each in numbers):
        return "has a shape or place of no whole numbers"
    if not isinstance(dtype, str) or dtype not in _BYTES:
        return f"is of number format '{str(dtype)[:20]}', which safetensors does not know"
    wanted = math.prod(shape) * _BYTES[dtype]
    return f"has {stop - start} bytes, and its shape takes {wanted}" if stop - start != wanted else ""


class ShardWriter:
    """Writes a model's tensors, in the order of their names, to files of a bounded size, with index and digest.

    What is to come is known before, so each tensor goes straight to its place: no file is held in memory.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, Shape],
        most: int,
        stem: str = "model",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Begin.

        Args:
            folder: where the files go.
            shapes: of all tensors.
            most: bytes of a file; a tensor that is larger has a file of its own.
            stem: what the files' names begin with.
            metadata: what each file says of its tensors besides.
        """
        self._folder, self._shapes, self._stem = folder, dict(sorted(shapes.items())), stem
        self._metadata = {"format": "pt", **(metadata or {})}
        self._most, self._shards = most, shards(self._shapes, most)
        self._waiting = iter(self._shapes)
        self._files = self._named()
        self._file: BinaryIO | None = None
        self._total = hashlib.sha256()

    def _named(self) -> list[str]:
        count = len(self._shards)
        if count == 1:
            return [f"{self._stem}.safetensors"]
        return [f"{self._stem}-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]

    def write(self, name: str, tensor: Tensor) -> None:
        """Write the next tensor.

        Raises:
            ValueError: it is not the next one by name, or not of the announced shape and format.
        """
        import torch

        wanted, shape = next(self._waiting, None), self._shapes.get(name)
        if name != wanted or shape is None:
            raise ValueError(f"{name} came where {wanted} was to come")
        if tuple(tensor.shape) != shape.shape or str(tensor.dtype) != f"torch.{DTYPES[shape.dtype]}":
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, announced was {shape.dtype} {shape.shape}")
        if self._shards and name == self._shards[0][0]:
            self._begin(self._shards.pop(0))
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        view = memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
        self._total.update(f"{name}\0{shape.dtype}\0{shape.shape}\0".encode())
        assert self._file
        for first in range(0, len(view), _BLOCK):
            block = view[first : first + _BLOCK]
            self._total.update(block)
            self._file.write(block)

    def _begin(self, names: Sequence[str]) -> None:
        if self._file:
            self._file.close()
        header: dict[str, Any] = {"__metadata__": self._metadata}
        place = 0
        for name in names:
            shape = self._shapes[name]
            header[name] = {"dtype": shape.dtype, "shape": list(shape.shape), "data_offsets": [place, place + shape.bytes]}
            place += shape.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file = (self._folder / self._files[len(self._files) - len(self._shards) - 1]).open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)

    def close(self) -> str:
        """Write the index where there are several files; return the digest of the weights.

        Raises:
            ValueError: tensors are missing.
        """
        if (left := next(self._waiting, None)) is not None:
            raise ValueError(f"{left} was not written")
        if self._file:
            self._file.close()
        if len(self._files) > 1:
            self._index()
        return self._total.hexdigest()

    def _index(self) -> None:
        """Say which tensor is in which file, as transformers reads it."""
        held = iter(self._files)
        found: dict[str, str] = {}
        for names in shards(self._shapes, self._most):
            found |= dict.fromkeys(names, next(held))
        size = sum(each.bytes for each in self._shapes.values())
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": found}, indent=2)
        (self._folder / f"{self._stem}.safetensors.index.json").write_text(text + "\n", encoding="utf-8")


def shards(shapes: Mapping[str, Shape], most: int) -> list[list[str]]:
    """Names by file: as many of them in a row as fit into `most` bytes, at least one."""
    found: list[list[str]] = []
    size = 0
    for name, shape in shapes.items():
        if not found or size + shape.bytes > most:
            found.append([])
            size = 0
        found[-1].append(name)
        size += shape.bytes
    return found


def cast(shape: Shape, dtype: str) -> Shape:
    """The same tensor in another number format of torch (`bfloat16`); whole numbers stay as they are."""
    if shape.dtype not in ("F64", "F32", "F16", "BF16"):
        return shape
    size = {"float64": 8, "float32": 4}.get(dtype, 2)
    return Shape(_CODES[dtype], shape.shape, math.prod(shape.shape) * size)


def coded(tensor: Tensor) -> Shape:
    """What a tensor in memory is."""
    dtype = _CODES[str(tensor.dtype).removeprefix("torch.")]
    return Shape(dtype, tuple(tensor.shape), tensor.numel() * tensor.element_size())


def by_layer(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each tensor's name with that of the layer it is in, for progress."""
    for name in names:
        found = re.search(r"\.(?:layers|h|blocks|block)\.(\d+)\.", f".{name}")
        yield name, f"layer {found[1]}" if found else name.rpartition(".")[0].rpartition(".")[2]
