"""What a command's settings name on this machine: files, folders of models, checkpoints of the record."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PASSING = ("output", "folder", "run_name", "cache", "project")
"""Settings that name what is made, not what is read."""
_MODELS = ("model", "models", "base", "teacher", "ref", "tokenizer")
_ROWS = ("dataset", "datasets", "validation", "calibration", "texts")
_REF = re.compile(r"(models|runs):/\S+")
_PIN = re.compile(r"(.+)@[0-9a-f]{6,64}")
_LISTING = (".yaml", ".yml", ".json", ".csv", ".txt")
"""Files that may name others: of batches, benchmarks, flows."""
_LONGEST_LISTING = 1 << 20


@dataclass(frozen=True)
class Named:
    """What is named."""

    paths: dict[str, Path] = field(default_factory=dict)
    """As it is written -> the file or folder."""
    refs: set[str] = field(default_factory=set)
    """Models of the record."""


def named(values: Mapping[str, Any], words: Sequence[str], folder: Path) -> Named:
    """Find what settings name.

    Args:
        values: flat settings.
        words: of the command line; those of a multirun name more than one job's settings do.
        folder: where the command was typed.
    """
    found, listings = Named(), dict[Path, None]()
    written = [(key, value) for key, value in values.items()]
    written += [(word.lstrip("+~").partition("=")[0], word.partition("=")[2]) for word in words if "=" in word]
    for key, value in written:
        last = key.rpartition(".")[2]
        if key.startswith(("launch", "choice.")) or last in _PASSING:
            continue
        for text in _texts(value):
            for name, each in ((last, text), *_parts(text, last)):
                path = _note(found, name, each, folder)
                if path and name not in _ROWS and path.suffix in _LISTING and path.is_file():
                    listings[path] = None
    for path in listings:
        for each in _listed(path):
            _note(found, "", each, folder)
    return found


def _listed(file: Path) -> set[str]:
    """What a file may name of the folder and below; of what lies elsewhere it decides nothing, so that no key travels."""
    if file.stat().st_size > _LONGEST_LISTING:
        return set()
    words = set(re.findall(r"[^\s,'\"\[\]{}:=()#]+", file.read_text("utf-8", "replace")))
    return {
        each
        for each in words
        if "/" in each and not each.startswith(("/", "~")) and not os.path.normpath(each).startswith("..")
    }


def moved(text: str, places: Mapping[str, str]) -> str:
    """A text with each path in it replaced by its place on the other machine."""
    for written in sorted(places, key=len, reverse=True):
        text = re.sub(rf"(?<![\w/.-]){re.escape(written)}(?![\w/-])", lambda _, to=places[written]: to, text)  # type: ignore[misc]
    return text


def _note(found: Named, last: str, text: str, folder: Path) -> Path | None:
    """Note what a text names; return the file or folder that it is the path of."""
    if _REF.fullmatch(text):
        found.refs.add(text)
        return None
    pinned = _PIN.fullmatch(text)
    for each in (text, *([pinned[1]] if pinned else [])):
        path = _path(each, folder, last in _MODELS)
        if path is not None:
            found.paths[each] = path
            return path
    if last in _ROWS and re.fullmatch(r"[^\W_][\w.\-]*(@\S+)?", text):
        name = text.partition("@")[0]
        for path in sorted((folder / "datasets").glob(f"{name}*")):
            if path.name == name or path.name.startswith(f"{name}."):
                found.paths[f"datasets/{path.name}"] = path
    return None


def _path(text: str, folder: Path, is_model: bool) -> Path | None:
    """The file of this name, or the folder of a name with a slash in it; of a model also that of any name."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = folder / Path(text).expanduser()
        if path.is_file() or ((is_model or "/" in text.strip("./~")) and text.strip("./~") and path.is_dir()):
            return path
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _parts(text: str, last: str) -> Iterator[tuple[str, str]]:
    """Values within a text: of a list, of a sweep, of a command that a flow's stage is; each with its setting's last name."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    for word in words:
        key, _, value = word.partition("=")
        for part in re.split(r"[,\[\]{}()]", value or word):
            if part.strip():
                yield key.rpartition(".")[2] if value else last, part.strip().strip("'\"")
