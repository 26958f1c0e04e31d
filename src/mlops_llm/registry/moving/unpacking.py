"""An archive unpacked: nothing of it is written anywhere but in the folder that is meant for it.

A backslash is a character of a name like others: this package runs where `/` alone parts names.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from mlops_llm.errors import UserError
from mlops_llm.files import free_bytes
from mlops_llm.registry.moving.contents import files_of, foul

_BLOCK = 1 << 20
_LONGEST, _LONGEST_PATH = 255, 2000
"""Bytes of a name and of all of a path: what is longer has no place on a disk."""


def unpack(place: Path, copy: Path) -> None:
    """Copy a folder, or what is in a tar, into an empty folder.

    Raises:
        UserError: a name leads outside, a member is no ordinary file or is there twice, or there is no room.
    """
    if place.is_dir():
        _copied(place, copy)
    else:
        _extracted(place, copy)


def _copied(place: Path, copy: Path) -> None:
    _room(sum(each.stat().st_size for each in files_of(place)), copy)
    for each in sorted(place.rglob("*")):
        name = each.relative_to(place).as_posix()
        if each.is_symlink() or not (each.is_file() or each.is_dir()):
            raise foul(place, f"'{name}' is a link, or no ordinary file")
        if each.is_file():
            with each.open("rb") as source:
                _put(source, copy / _inside(place, name))


def _extracted(place: Path, copy: Path) -> None:
    size = place.stat().st_size
    _room(size, copy)
    names = set[str]()
    try:
        with tarfile.open(place, "r:") as tar:  # not compressed: what comes out is no larger than what is there
            for member in tar:
                if not member.isreg() or member.issparse() or member.size < 0:
                    raise foul(place, f"'{member.name[:200]}' is a link, or no ordinary file")
                name = _inside(place, member.name)
                if name in names:
                    raise foul(place, f"'{name}' is in it twice")
                names.add(name)
                size -= member.size
                source = tar.extractfile(member)
                if size < 0 or source is None:
                    raise foul(place, f"'{name}' is larger than the archive")
                _put(source, copy / name)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the beginning, which a header names
            raise
        raise _torn(place) from error
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise _torn(place) from error


def _torn(place: Path) -> UserError:
    return UserError("is no tar, or not a whole one", str(place), "copy it again")


def _inside(place: Path, name: str) -> str:
    """A member's name, which stays in the archive.

    Raises:
        UserError: it leads outside.
    """
    path = PurePosixPath(name)
    plain = name and not path.is_absolute() and path.as_posix() == name and not {"..", "."} & set(path.parts)
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if not plain or "\0" in name or longest > _LONGEST or len(path.parts) > 100 or len(os.fsencode(name)) > _LONGEST_PATH:
        raise foul(place, f"the name '{name[:200]}' leads outside, or is none")
    return name


def _put(source: IO[bytes], file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as target:
            shutil.copyfileobj(source, target, _BLOCK)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError("holds two things of one name", str(file.name), "take the archive as it was written") from error


def _room(needed: int, folder: Path) -> None:
    free = free_bytes(folder)
    if needed > free:
        from mlops_llm import console

        what = f"{console.size(needed)} are to be unpacked, {console.size(free)} are free"
        raise UserError(what, str(folder), "make room, or choose another output=")
