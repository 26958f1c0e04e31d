"""The archive of runs: a folder, or a tar of it, whose manifest has the digest of every file.

`manifest.json`, one file of JSON lines for runs, checkpoints, registered models and datasets each, and below `artifacts/RUN`
and `files/CHECKPOINT` the files. What is read from one is nobody's word: names that lead outside, links, doubles, files that
the manifest does not know, other bytes and other types are refused before anything of it is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, TypeVar

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import clear_drafts, free_bytes, read_object, replace, whole_folder, writable, write_lines, write_text
from mlops_llm.tracking.portable import (
    MODEL_ID,
    RUN_ID,
    PortableCheckpoint,
    PortableDataset,
    PortableModel,
    PortableRun,
    PortableVersion,
)

T = TypeVar("T")
FORMAT = 1
MANIFEST, ARTIFACTS, FILES = "manifest.json", "artifacts", "files"
_LARGEST_LINES = 4 << 30
"""Bytes of a file of JSON lines that is read."""
_BLOCK = 1 << 20
_ENDED = ("FINISHED", "FAILED", "KILLED")
_INPUT = {"name", "digest", "source_type", "source", "schema", "profile", "tags"}
_TAR = ".tar"


@dataclass(frozen=True)
class Contents:
    """What an archive holds besides files."""

    runs: tuple[PortableRun, ...]
    checkpoints: tuple[PortableCheckpoint, ...]
    models: tuple[PortableModel, ...]
    datasets: tuple[PortableDataset, ...]
    weights: Mapping[str, str]
    """Checkpoint -> digest of its weights."""


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
        with replace(out) as single, tarfile.open(single, "w") as tar:
            for file in _files(draft):
                tar.add(file, file.relative_to(draft).as_posix(), recursive=False, filter=_nobodys)


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
        for file in _files(folder)
    }
    told = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "mlops_llm": version("mlops-llm"),
        "from": source,
        "weights": dict(contents.weights),
        "files": files,
    }
    write_text(folder / MANIFEST, json.dumps(told, ensure_ascii=False, indent=1))
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
        if place.is_dir():
            _copied(place, copy)
        else:
            _extracted(place, copy)
        yield copy, _checked(place, copy)


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Say that a living process works in a folder, see `files.clear_drafts`."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that says nothing of who wrote it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _copied(place: Path, copy: Path) -> None:
    _room(sum(each.stat().st_size for each in _files(place)), copy)
    for each in sorted(place.rglob("*")):
        name = each.relative_to(place).as_posix()
        if each.is_symlink() or not (each.is_file() or each.is_dir()):
            raise _foul(place, f"'{name}' is a link, or no ordinary file")
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
                if not member.isreg() or member.issparse():
                    raise _foul(place, f"'{member.name[:200]}' is a link, or no ordinary file")
                name = _inside(place, member.name)
                if name in names:
                    raise _foul(place, f"'{name}' is in it twice")
                names.add(name)
                size -= member.size
                source = tar.extractfile(member)
                if size < 0 or source is None:
                    raise _foul(place, f"'{name}' is larger than the archive")
                _put(source, copy / name)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError("is no tar, or not a whole one", str(place), "copy it again") from error


def _inside(place: Path, name: str) -> str:
    """A member's name, which stays in the archive.

    Raises:
        UserError: it leads outside.
    """
    path = PurePosixPath(name)
    plain = name and not path.is_absolute() and path.as_posix() == name and not {"..", "."} & set(path.parts)
    if not plain or "\\" in name or "\0" in name or len(path.parts) > 100:
        raise _foul(place, f"the name '{name[:200]}' leads outside, or is none")
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


def _checked(place: Path, copy: Path) -> Contents:
    """See that every file is as the manifest says, and read the contents."""
    if not (copy / MANIFEST).is_file():
        raise UserError(f"has no {MANIFEST}", str(place), "name a folder or a .tar that op=export_runs wrote")
    try:
        told = read_object(copy / MANIFEST)
    except RecursionError as error:
        raise _foul(place, "the manifest is none of ours") from error
    if told.get("format") != FORMAT:
        raise UserError(f"has the format {told.get('format')!r:.40}, and this release reads {FORMAT}", str(place), "update")
    listed, weights = told.get("files"), told.get("weights")
    if not isinstance(listed, dict) or not isinstance(weights, dict):
        raise _foul(place, "the manifest lists no files")
    there = {file.relative_to(copy).as_posix(): file for file in _files(copy)}
    del there[MANIFEST]
    for name in sorted(there.keys() | listed.keys()):
        entry = listed.get(name)
        if name not in there:
            raise _foul(place, f"'{name[:200]}' is missing")
        if not isinstance(entry, dict):
            raise _foul(place, f"the manifest does not know '{name[:200]}'")
        if there[name].stat().st_size != entry.get("bytes") or _sha(there[name]) != entry.get("sha256"):
            raise _foul(place, f"'{name[:200]}' was altered")
    contents = Contents(
        tuple(_read(place, copy / "runs.jsonl", PortableRun)),
        tuple(_read(place, copy / "checkpoints.jsonl", PortableCheckpoint)),
        tuple(_read(place, copy / "models.jsonl", PortableModel)),
        tuple(_read(place, copy / "datasets.jsonl", PortableDataset)),
        {str(key): str(value) for key, value in weights.items()},
    )
    _check(place, contents)
    for model, wanted in contents.weights.items():
        folder = copy / FILES / model
        if MODEL_ID.fullmatch(model) is None or not folder.is_dir() or digest.weights(folder) != wanted:
            raise _foul(place, f"the weights of {model[:40]} are not those of the manifest")
    return contents


def _check(place: Path, contents: Contents) -> None:
    """See that ids, states and rows are what they can be."""
    for run in contents.runs:
        if not RUN_ID.fullmatch(run.id) or not RUN_ID.fullmatch(run.origin) or run.status not in _ENDED:
            raise _foul(place, f"'{run.id[:40]}' is no run that ended")
        inputs = all(isinstance(each, dict) and each.keys() == _INPUT and isinstance(each["tags"], dict) for each in run.inputs)
        if not inputs or not _rows(run.metrics, "snii") or not _rows(run.makes, "si"):
            raise _foul(place, f"the rows of run {run.id} are none of ours")
    for checkpoint in contents.checkpoints:
        if not MODEL_ID.fullmatch(checkpoint.id) or not MODEL_ID.fullmatch(checkpoint.origin):
            raise _foul(place, f"'{checkpoint.id[:40]}' is no checkpoint's id")
        if not _rows(checkpoint.metrics, "sniisoo"):
            raise _foul(place, f"the numbers of checkpoint {checkpoint.id} are none of ours")
    for each in contents.models:
        if "'" in each.name or not each.name.strip():
            raise _foul(place, f"'{each.name[:40]}' is no registered model's name")


def _rows(rows: list[list[Any]], kinds: str) -> bool:
    """Whether rows have columns of these kinds: text (s), number (n), whole number (i), text or nothing (o)."""
    types: dict[str, tuple[type, ...]] = {"s": (str,), "n": (int, float), "i": (int,), "o": (str, type(None))}
    return all(
        len(row) == len(kinds) and all(isinstance(cell, types[kind]) for cell, kind in zip(row, kinds, strict=True))
        for row in rows
    )


def _read(place: Path, file: Path, kind: type[T]) -> Iterator[T]:
    if not file.is_file() or file.stat().st_size > _LARGEST_LINES:
        raise _foul(place, f"{file.name} is missing, or too large")
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _built(json.loads(line), kind)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise _foul(place, f"{file.name}, line {number} is none of ours") from error


def _built(value: Any, kind: type[T]) -> T:
    """A value of a kind, each of its fields of the type that it says."""
    told = {each.name: str(each.type) for each in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict) or value.keys() != told.keys():
        raise TypeError
    return kind(**{name: _as(value[name], said) for name, said in told.items()})


def _as(value: Any, said: str) -> Any:
    if said == "tuple[PortableVersion, ...]":
        return tuple(_built(each, PortableVersion) for each in _as(value, "list"))
    plain: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "int | None": (int, type(None))}
    if said in plain and not isinstance(value, plain[said]):
        raise TypeError
    if said.startswith("list") and not isinstance(value, list):
        raise TypeError
    if said == "list[str]" and not all(isinstance(each, str) for each in value):
        raise TypeError
    if said == "list[list[Any]]" and not all(isinstance(each, list) for each in value):
        raise TypeError
    inner = {"dict[str, str]": str, "dict[str, int]": int}.get(said)
    if inner and not (isinstance(value, dict) and all(isinstance(each, inner) for each in value.values())):
        raise TypeError
    return value


def _sha(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _foul(place: Path, what: str) -> UserError:
    return UserError(f"is not as op=export_runs wrote it: {what}", str(place), "copy it again; nothing was imported")
