"""Content on the other machine, kept by its digest, so that what is there already is not sent again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.ssh.connection import Connection

_MUCH = 64 << 20
"""Bytes that are announced before they travel."""
_SPARE = 64 << 20
"""Bytes that stay free for what the command writes at its start."""
_PRESENT = 'for each; do [ -d "$each" ] && echo "$each"; done; exit 0'
_FINISHED = """
[ -d "$1" ] || mv -T "$1.part" "$1" || [ -d "$1" ] || exit 1
rm -rf "$1.part"
"""
"""Gives content its name; another command may have sent the same meanwhile."""


@dataclass(frozen=True)
class Content:
    """Something to be there."""

    title: str
    """How a person knows it."""
    place: str
    """Its folder there, absolute; it appears whole or not at all."""
    files: Mapping[str, Path]
    """Name below the place -> file."""

    @property
    def bytes(self) -> int:
        """Its size."""
        return sum(file.stat().st_size for file in self.files.values())


def of_path(path: Path, root: str) -> Content:
    """A file or folder, as it is kept below the root there."""
    inner = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return of_files(path.name, {str(file.relative_to(path.parent)): file for file in inner}, root)


def of_files(title: str, files: Mapping[str, Path], root: str) -> Content:
    """Files under names of their own, as they are kept below the root there."""
    told = digest.row({name: digest.raw(file) for name, file in files.items()})
    return Content(title, f"{root}/files/{told}", files)


def bring_there(to: Connection, contents: Iterable[Content], free: int) -> None:
    """Send what is not there yet; what was cut off goes on where it was.

    Args:
        to: the machine.
        contents: what is to be there.
        free: bytes on its disk.

    Raises:
        LostError: the connection broke.
        UserError: there is no space for it.
    """
    by_place = {each.place: each for each in contents}
    there = _there(to, by_place)
    missing = [each for place, each in by_place.items() if place not in there]
    total = sum(each.bytes for each in missing)
    if total + _SPARE > free:
        what = f"has {console.size(free)} free, and {console.size(total + _SPARE)} are needed"
        raise UserError(what, to.host, "free some, or choose another launch.folder")
    for each in missing:
        if each.bytes > _MUCH:
            console.say(f"sending {each.title}: {console.size(each.bytes)}")
        try:
            sent = _sent(to, each)
            to.ask(_FINISHED, each.place)
        except LostError:
            raise
        except UserError:
            if each.place not in _there(to, [each.place]):
                raise
            continue  # another command was the first to send it, and took its draft
        console.say(f"sent {each.title}: {console.size(sent)} of {console.size(each.bytes)}")


def _there(to: Connection, places: Iterable[str]) -> set[str]:
    return set(to.ask(_PRESENT, *places).decode().splitlines())


def _sent(to: Connection, content: Content) -> int:
    """Send content to its place's draft; return how many bytes travelled."""
    to.ask('mkdir -p "$1.part"', content.place)
    with tempfile.TemporaryDirectory(prefix="mlops_llm-") as folder:
        for name, file in content.files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file.resolve())
        return to.send(f"{folder}/", f"{content.place}.part/", "--copy-links")


def link_into(to: Connection, links: Mapping[str, str]) -> None:
    """Let content also have the name that a command gives it: path there -> content's path there."""
    if not links:
        return
    pairs = [each for pair in links.items() for each in pair]
    to.ask('set -e; while [ $# -gt 0 ]; do mkdir -p "${1%/*}"; ln -sfn "$2" "$1"; shift 2; done', *pairs)
