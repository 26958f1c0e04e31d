"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlops_llm.errors import UserError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to fill; it becomes `out` when the block ends well and vanishes when it does not.

    Raises:
        UserError: `out` exists already, or its parent cannot be written.
    """
    if out.exists():
        raise UserError("folder exists already", str(out), "choose another name or remove it")
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=writable(out.parent)))
    try:
        yield draft
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)  # some libraries write for their own user only
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text under a temporary name, then rename it to `path`."""
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=writable(path.parent))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path


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
        try:
            os.link(file, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP):
                raise
            shutil.copy2(file, target)
            linked = False
    return linked


def size(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
