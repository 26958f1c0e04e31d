"""What a stage's result depends on: its settings, the rows and weights that they name, and the code of its room."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlops_llm
from mlops_llm import digest
from mlops_llm.component import plain
from mlops_llm.data.read import raw_digest
from mlops_llm.data.ref import locate
from mlops_llm.errors import UserError
from mlops_llm.models import digested
from mlops_llm.models.ref import Place, resolve
from mlops_llm.pipeline.words import HANDOFF
from mlops_llm.tracking import ledger
from mlops_llm.tracking.store import connect

_PASSING = ("output", "folder", "project", "run_name", "resume", "cache")
"""Settings that say where, not what."""
_HOW = ("care.", "launch", "choice.launch")
_MODELS = ("model", "models", "base", "teacher", "ref", "tokenizer")
_ROWS = ("dataset", "validation", "calibration", "texts")
_RUNS = ("run", "runs")
_SHARED = ("models", "inference")
"""Rooms whose code every stage works with."""
_SERVED = re.compile(r"http://127\.0\.0\.1:\d+")


@dataclass(frozen=True)
class Identity:
    """What a result depends on, part by part."""

    settings: str
    """Digest of all that is set, without what the refs in it stand for."""
    code: str
    content: Mapping[str, str]
    """Setting that names a model, rows, a run or a file -> digest of what that holds."""

    @property
    def inputs(self) -> str:
        """One digest of it all; how a model or a dataset is called does not count."""
        return digest.row({"settings": self.settings, "code": self.code, "content": dict(self.content)})

    @property
    def parts(self) -> dict[str, str]:
        """Part -> digest, to tell what is another."""
        return {"settings": self.settings, "code": self.code, **self.content}


def identity(room: str, values: Mapping[str, Any], more: str = "") -> Identity:
    """What a command's result depends on.

    Args:
        room: whose command it is.
        values: its settings, flat, with `choice.GROUP` of each component.
        more: what else belongs to the settings.

    Raises:
        UserError: rows that are named are not there, or weights are not those that the record says.
    """
    content = {name: _digest(name, text) for key, value in _content(values).items() for name, text in _texts(key, value)}
    return Identity(settings(room, values, more), code(room), content)


def settings(room: str, values: Mapping[str, Any], more: str = "") -> str:
    """Digest of what is set, whatever the models, rows and files hold that are named; see `identity`."""
    named, kept = _content(values), {"room": room, "": more}
    for key, value in values.items():
        if not (key in named or key in _PASSING or key.startswith(_HOW) or value is None):
            kept[key] = _SERVED.sub("http://127.0.0.1", value) if isinstance(value, str) else plain(value)
    return digest.row(kept)


def _content(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that name a model, rows, a run, or a file or folder."""
    return {
        key: value
        for key, value in values.items()
        if key not in _PASSING and not key.startswith(_HOW) and any(_is_name(key, text) for _, text in _texts(key, value))
    }


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value:
        yield key, value
    elif isinstance(value, list | tuple):
        yield from ((f"{key}[{place}]", each) for place, each in enumerate(value) if isinstance(each, str) and each)


def _last(key: str) -> str:
    return key.partition("[")[0].rpartition(".")[2]


def _is_name(key: str, text: str) -> bool:
    return _last(key) in (*_MODELS, *_ROWS, *_RUNS) or _path(text) is not None


def _path(text: str) -> Path | None:
    """The file of this name, or the folder of a name with a slash in it."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = Path(text).expanduser()
        if path.is_file() or ("/" in text.strip("./~") and path.is_dir()):
            return path
    return None


def _digest(key: str, text: str) -> str:
    """Digest of what a setting's text stands for; the text itself where that is not known."""
    last = _last(key)
    if HANDOFF.fullmatch(text):
        return text
    if last in _ROWS:
        path = locate(text).path
        return raw_digest(path, ()) if path.exists() else text
    if last in _MODELS:
        place = _model(text)
        return f"{digested.weights_digest(place)} {place.tags.get('digest.template', '')}".strip() if place else text
    if last in _RUNS:
        with contextlib.suppress(UserError):
            return ledger.find_run(connect(), text).id
        return text
    found = _path(text)
    return _of_place(found) if found else text


def _model(text: str) -> Place | None:
    try:
        return resolve(text)
    except UserError:
        return None  # a model that a server has by this name


def _of_place(path: Path) -> str:
    """Digest of a file; of a folder that of its files' names, sizes and times."""
    if path.is_file():
        return digest.raw(path)
    found = [(str(each.relative_to(path)), each.stat()) for each in sorted(path.rglob("*")) if each.is_file()]
    return digest.row({name: [about.st_size, about.st_mtime_ns] for name, about in found})


@cache
def code(room: str) -> str:
    """Digest of the sources of a room, and of those with which every stage loads models and asks them."""
    root = Path(mlops_llm.__file__).parent
    files = sorted(file for each in (room, *_SHARED) for file in (root / each).rglob("*.py"))
    return digest.row({str(file.relative_to(root)): digest.raw(file) for file in files})
