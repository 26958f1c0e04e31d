"""The archive of runs: a folder, or a tar of it, whose manifest has the digest of every file.

`manifest.json`, one file of JSON lines for runs, checkpoints, registered models and datasets each, and below `artifacts/RUN`
and `files/CHECKPOINT` the files. What is read from one is nobody's word: names that lead outside, links, doubles, files that
the manifest does not know, other bytes and other types are refused before anything of it is used.
"""

from __future__ import annotations

import fcntl
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import clear_drafts, whole_folder, writable, write_lines, write_text
from mlops_llm.registry.moving.checking import checked
from mlops_llm.registry.moving.contents import FORMAT, MANIFEST, Contents, files_of
from mlops_llm.registry.moving.unpacking import unpack

_TAR = ".tar"


@contextmanager
def written(out: Path) -> Iterator[Path]:
    """Give a folder to fill; when the block ends well it is the archive `out`, with `seal`ed contents, else nothing is left.

    Raises:
        UserError: `out` exists already, or cannot be written.
    """
    if out.exists():
        raise UserError("exists already", str(out), "choose another op.file")
    clear_drafts(out)
    if out.suffix != _TAR:
        with whole_folder(out) as draft:
            yield draft
        return
    with TemporaryDirectory(prefix=f".{out.name}.", dir=writable(out.parent)) as folder, _locked(Path(folder)) as own:
        draft = own / "archive"
        draft.mkdir()
        yield draft
        single = own / out.name  # in the folder that the next one clears
        with single.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                for each in files_of(draft):
                    tar.add(each, each.relative_to(draft).as_posix(), recursive=False, filter=_nobodys)
            file.flush()
            os.fsync(file.fileno())
        single.replace(out)


def seal(folder: Path, contents: Contents, source: str) -> dict[str, Any]:
    """Write contents and manifest into a folder that holds the files already; return the manifest.

    Args:
        folder: the archive to be.
        contents: what it holds.
        source: where it comes from, for a person.
    """
    for name in ("runs", "checkpoints", "models", "datasets"):
        lines = (json.dumps(asdict(each), ensure_ascii=False, sort_keys=True) for each in getattr(contents, name))
        write_lines(folder / f"{name}.jsonl", lines)
    files = {
        file.relative_to(folder).as_posix(): {"sha256": digest.raw(file), "bytes": file.stat().st_size}
        for file in files_of(folder)
    }
    told = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "mlops_llm": version("mlops-llm"),
        "from": source,
        "weights": dict(contents.weights),
        "files": files,
    }
    write_text(folder / MANIFEST, json.dumps(told, ensure_ascii=False, indent=1), "backslashreplace")  # names may be any bytes
    return told


@contextmanager
def opened(place: Path, beside: Path) -> Iterator[tuple[Path, Contents]]:
    """Copy an archive into a folder of its own, every byte checked, and read it; the copy is gone after the block.

    Args:
        place: the archive, a folder or a tar.
        beside: folder on the disk that is to hold the copy; what killed imports left in it is removed.

    Raises:
        UserError: it is none, or is not as it was written.
    """
    if not place.exists():
        raise UserError("there is no such archive", str(place), "name a folder or a .tar that op=export_runs wrote")
    clear_drafts(beside / "import")
    with TemporaryDirectory(prefix=".import.", dir=writable(beside)) as folder, _locked(Path(folder)) as copy:
        unpack(place, copy)
        yield copy, checked(place, copy)


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Say that a living process works in a folder, see `files.clear_drafts`."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that says nothing of who wrote it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
