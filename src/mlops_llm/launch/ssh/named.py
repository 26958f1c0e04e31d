"""What a command's settings name on this machine: files, folders of models, checkpoints of the record."""

from __future__ import annotations

import contextlib
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
    found = Named()
    written = [(key, value) for key, value in values.items()]
    written += [(word.lstrip("+~").partition("=")[0], word.partition("=")[2]) for word in words if "=" in word]
    for key, value in written:
        last = key.rpartition(".")[2]
        if key.startswith(("launch", "choice.")) or last in _PASSING:
            continue
        for text in _texts(value):
            for each in {text, *_parts(text)}:
                _note(found, last, each, folder)
    for path in list(found.paths.values()):
        if path.is_file() and path.suffix in _LISTING and path.stat().st_size <= _LONGEST_LISTING:
            for each in set(re.findall(r"[^\s,'\"\[\]{}:=()#]+", path.read_text("utf-8", "replace"))):
                if "/" in each and not Path(each).is_absolute():
                    _note(found, "", each, folder)
    return found


def moved(text: str, places: Mapping[str, str]) -> str:
    """A text with each path in it replaced by its place on the other machine."""
    for written in sorted(places, key=len, reverse=True):
        text = re.sub(rf"(?<![\w/.-]){re.escape(written)}(?![\w/-])", lambda _, to=places[written]: to, text)  # type: ignore[misc]
    return text


def _note(found: Named, last: str, text: str, folder: Path) -> None:
    if _REF.fullmatch(text):
        found.refs.add(text)
        return
    pinned = _PIN.fullmatch(text)
    for each in (text, *([pinned[1]] if pinned else [])):
        path = _path(each, folder, last in _MODELS)
        if path is not None:
            found.paths[each] = path
            return
    if last in _ROWS and re.fullmatch(r"[^\W_][\w.\-]*(@\S+)?", text):
        name = text.partition("@")[0]
        for path in sorted((folder / "datasets").glob(f"{name}*")):
            if path.name == name or path.name.startswith(f"{name}."):
                found.paths[f"datasets/{path.name}"] = path


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


def _parts(text: str) -> Iterator[str]:
    """Values within a text: of a list, of a sweep, of a command that a flow's stage is."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    for word in words:
        for part in re.split(r"[,\[\]{}()]", word.partition("=")[2] or word):
            if part.strip():
                yield part.strip().strip("'\"")
