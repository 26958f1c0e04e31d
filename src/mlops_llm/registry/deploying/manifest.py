"""What a deployment folder says of itself, and whether it is still what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.files import read_object

NAME, SUMS = "manifest.json", "SHA256SUMS"
"""The manifest; and the digests of all files, as `sha256sum --check` reads them."""
_OURS = ("model", "gguf")
"""Folders of which servers read whatever lies there."""
_MEGA, _LONG = 10**6, 10**9
_NEEDED = ("inputs", "name", "ref", "registered", "digest.weights", "digest.template", "deployed")


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Write the manifest, with digest and size of every file that is there, and the list for `sha256sum`."""
    names = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    sizes = {name: (folder / name).stat().st_size for name in names}
    sums = {name: digest.raw(folder / name) for name in _watched(sizes, "reading")}
    listed = {name: {"sha256": each, "bytes": sizes[name]} for name, each in sums.items()}
    (folder / NAME).write_text(json.dumps({**told, "files": listed}, ensure_ascii=False, indent=2) + "\n", "utf-8")
    sums[NAME] = digest.raw(folder / NAME)
    (folder / SUMS).write_text("".join(f"{each}  {name}\n" for name, each in sums.items()), "utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        UserError: there is none.
    """
    if not (folder / NAME).is_file():
        raise UserError(f"holds no {NAME}", str(folder), "name a folder that op=deploy wrote")
    told = read_object(folder / NAME)
    files = told.get("files")
    is_whole = isinstance(files, dict) and all(_is_entry(name, each) for name, each in files.items())
    if not is_whole or not all(name in told for name in _NEEDED):
        raise UserError("is no whole manifest", str(folder / NAME), "copy the folder again")
    return told


def verify(folder: Path) -> dict[str, Any]:
    """See that every file is what the manifest says, and that nothing lies beside the model's files.

    Args:
        folder: a deployment.

    Returns:
        The manifest.

    Raises:
        UserError: a file is missing, altered or foreign; it is named.
    """
    told, again = read(folder), "copy the folder again, or write it again with op=deploy"
    here = {each.relative_to(folder).as_posix() for name in _OURS for each in (folder / name).rglob("*") if each.is_file()}
    if foreign := sorted(here - set(told["files"])):
        raise UserError("is not in the manifest, and servers would read it", str(folder / foreign[0]), "remove it")
    for name in _watched({name: int(each["bytes"]) for name, each in told["files"].items()}, "checking"):
        file, each = folder / name, told["files"][name]
        if not file.is_file():
            raise UserError("is missing", str(file), again)
        size = file.stat().st_size
        if size != each["bytes"]:
            raise UserError(f"was altered ({size:,} bytes, not {each['bytes']:,})", str(file), again)
        if (found := digest.raw(file)) != each["sha256"]:
            raise UserError(f"was altered (sha256 {found[:12]}…, not {each['sha256'][:12]}…)", str(file), again)
    return told


def _watched(sizes: Mapping[str, int], what: str) -> Iterator[str]:
    """Each file, with progress in megabytes where reading all takes a while."""
    total, done = sum(sizes.values()), 0
    progress = console.Progress(what, total // _MEGA) if total > _LONG else None
    try:
        for name, size in sizes.items():
            yield name
            done += size
            if progress:
                progress.at(done // _MEGA, f"MB: {name}")
    finally:
        if progress:
            progress.close()


def _is_entry(name: str, told: Any) -> bool:
    """Whether a line of a manifest names a file of its folder."""
    path = PurePosixPath(name)
    within = not path.is_absolute() and ".." not in path.parts
    return within and isinstance(told, dict) and isinstance(told.get("sha256"), str) and isinstance(told.get("bytes"), int)
