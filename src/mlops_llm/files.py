"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError, first_line

_LONGEST_NAME = 255
"""Bytes of a name in a folder, by every usual file system."""
_LONGEST_OWN = 200
"""Bytes of a name that is given here: its draft has a longer one."""
_DRAFT = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""Name of a draft, as tempfile makes it: that of the output within."""


class TakenError(UserError):
    """A folder that was to be made exists already, since a moment or for long."""

    def __init__(self, out: Path) -> None:
        """Say which."""
        super().__init__("folder exists already", str(out), "choose another name or remove it")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to fill; it becomes `out` when the block ends well and vanishes when it does not.

    Raises:
        TakenError: `out` exists already.
        UserError: its parent cannot be written.
    """
    if out.exists():
        raise TakenError(out)
    draft, lock = _draft(out)
    try:
        yield draft
        for path in (draft, *draft.rglob("*")):
            if path.is_dir() or path.stat().st_nlink == 1:  # what has another name elsewhere keeps its rights
                path.chmod(0o755 if path.is_dir() else 0o644)  # some libraries write for their own user only
        _rename(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _rename(draft: Path, out: Path) -> None:
    try:
        draft.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
            raise TakenError(out) from error
        raise


def _draft(out: Path) -> tuple[Path, int]:
    """A hidden folder beside `out`, and the open file that says that a living process fills it."""
    while True:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=writable(out.parent)))
        lock = os.open(draft, os.O_RDONLY)
        with suppress(OSError):  # a file system that knows no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if draft.is_dir():  # else another process took it for one that was left over, in the moment before it was locked
            return draft, lock
        os.close(lock)


def clear_drafts(out: Path) -> list[Path]:
    """Remove what processes that were killed left beside `out`, and return it.

    What a living process fills stays, and so do drafts of other outputs.
    """
    left = (each for each in sorted(out.parent.glob(".*")) if intended(each).name == out.name and each.name != out.name)
    return [each for each in left if each.is_dir() and _cleared(each)]


def intended(folder: Path) -> Path:
    """What a draft of `whole_folder` is to be called; any other folder is itself."""
    found = _DRAFT.fullmatch(folder.name)
    return folder.with_name(found[1]) if found else folder


def _cleared(draft: Path) -> bool:
    try:
        lock = os.open(draft, os.O_RDONLY)
    except OSError:  # another process has just removed or finished it
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(draft, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: it cannot be read, or the file holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read ({first_line(error)})", str(path), "copy it again") from error
    if not isinstance(value, dict):
        raise UserError("is not an object", str(path), "copy it again")
    return value


def write_text(path: Path, text: str, errors: str = "strict") -> Path:
    """Write UTF-8 text under a temporary name, then rename it to `path`.

    Args:
        path: the file.
        text: its content.
        errors: Python's name of what becomes of a lone surrogate, which has no UTF-8 form; `backslashreplace` writes it as JSON
            does, so that a reader of JSON gets it back.
    """
    return _write(path, (text,), errors)


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write lines of JSON as UTF-8 under a temporary name, one after the other, then rename it to `path`."""
    return _write(path, (f"{line}\n" for line in lines), "backslashreplace")


def _write(path: Path, parts: Iterable[str], errors: str) -> Path:
    with replace(path) as draft, draft.open("w", encoding="utf-8", errors=errors) as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    return path


@contextmanager
def replace(path: Path) -> Iterator[Path]:
    """Give a file name beside `path` to write; it becomes `path` when the block ends well and vanishes when it does not."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix="".join(path.suffixes), dir=writable(path.parent))
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def expanded(path: str) -> Path:
    """A path as a person types it, with `~` for a home folder.

    Raises:
        UserError: it names the home folder of nobody, or holds what no path can.
    """
    if "\0" in path:
        raise UserError("holds a character that no path has", path[:200], "take it out")
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in path.split("/")):
        raise UserError("is longer than a name can be", f"{path[:40]!a}…", "check it")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError("names the home folder of nobody here", path[:200], "check the name behind ~") from error


def cache_folder() -> Path:
    """What can be made again: `$MLOPS_LLM_CACHE`, else `mlops_llm` under `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("MLOPS_LLM_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{shared}/mlops_llm").expanduser().absolute()


def check_part(name: str, where: str, remedy: str = "take letters, digits, '-', '_' and '.'") -> str:
    """Return a name that is one part of a path: what it names lies where it was meant to lie.

    Raises:
        UserError: it leads elsewhere, or no file can have it.
    """
    bad = any(each in "/\\" or not each.isprintable() for each in name)
    if bad or name in ("", ".", "..") or len(name.encode()) > _LONGEST_OWN:
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        raise UserError(f"is '{shown}', which is no name of one folder", where, remedy)
    return name


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is a symbolic link to somewhere else; the links of the hub's cache stay within it."""
    if not file.is_symlink():
        return False
    inside = [folder.resolve()]
    if folder.parent.name == "snapshots":
        inside.append(folder.parents[1].resolve() / "blobs")
    return not any(file.resolve().is_relative_to(each) for each in inside)


def writable(folder: Path) -> Path:
    """Create `folder` if need be and return it.

    Raises:
        UserError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be created ({error.strerror})", str(folder), "choose another output folder") from error
    if not os.access(folder, os.W_OK):
        raise UserError("is not writable", str(folder), "choose another output folder or mend its rights")
    return folder


def link_files(files: list[Path], folder: Path) -> bool:
    """Hard-link files into `folder`, or copy them where the file system refuses; return whether all were linked.

    The files share their content with the originals afterwards: neither may be edited in place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    linked = True
    for file in files:
        target = folder / file.name
        if target.exists() and target.samefile(file):
            continue
        target.unlink(missing_ok=True)
        linked = link_file(file, target) and linked
    return linked


def link_file(file: Path, target: Path) -> bool:
    """Hard-link a file under a name that is free, or copy it where the file system refuses; return whether it was linked.

    Of a symbolic link, such as those in the hub's cache, the file behind it is taken.
    """
    try:
        os.link(file.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise
        shutil.copy2(file, target)
        return False
    return True


def size(folder: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(told.st_size for _, told in _below(folder))


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files below a folder and what the disk says of them, but those that vanish meanwhile and links that lead nowhere."""
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            with suppress(OSError):
                told = file.stat()
                if stat.S_ISREG(told.st_mode):
                    yield file, told


@dataclass(frozen=True)
class Content:
    """What a file holds, whatever names it has: several are one content where they are hard links."""

    bytes: int
    names: int
    """In the folders that were looked at."""
    everywhere: int
    """On the whole disk."""


def contents(folders: Iterable[Path]) -> dict[tuple[int, int], Content]:
    """Device and inode -> content, of all files below some folders."""
    found = {file: told for folder in folders for file, told in _below(folder) if not file.is_symlink()}
    told = found.values()
    names = Counter((each.st_dev, each.st_ino) for each in told)
    return {(each.st_dev, each.st_ino): Content(each.st_size, names[each.st_dev, each.st_ino], each.st_nlink) for each in told}


def free_bytes(folder: Path) -> int:
    """Return the bytes still free on the disk that holds (or would hold) `folder`."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one that caused it, says that no space is left.

    safetensors and torch wrap the system's error in their own types and keep only its text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(seen)
        if "No space left" in text or "quota exceeded" in text or "os error 28" in text:
            return True
        # torch's zip writer reports a short write on a full disk this way
        if "unexpected pos" in text or "PytorchStreamWriter failed" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
