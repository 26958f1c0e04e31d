"""What a command needs on the other machine: code, presets, files and models that its settings name, and its words there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlops_llm.launch.place import Command
from mlops_llm.launch.ssh import code, storage
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.launch.ssh.named import moved, named
from mlops_llm.launch.ssh.storage import Content
from mlops_llm.tracking import sendable

_PRESETS = (".yaml", ".yml")


@dataclass(frozen=True)
class Parcel:
    """What travels before a command starts."""

    code: Content
    root: Path
    """Where the code lies here."""
    contents: tuple[Content, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    """Name below the folder where the command runs -> content there."""
    words: tuple[str, ...] = ()
    """Of the command there."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Path outside of the command's folder, as it is written -> its content there."""

    def send(self, to: Connection, work: str, free: int) -> None:
        """Send what is not there yet, and give it the names by which the command knows it."""
        storage.bring_there(to, (self.code, *self.contents), free)
        storage.link_into(to, {f"{work}/{name}": place for name, place in self.links.items()})


def packed(command: Command, folder: Path, root: str, output: str) -> Parcel:
    """Find out what a command needs there.

    Args:
        command: with its settings.
        folder: where it was typed, or where its run began.
        root: folder there of all that is sent.
        output: folder here of its run's files, which is another there.
    """
    own = code.state()
    parcel = Parcel(Content("code", f"{root}/code/{own.digest}", own.files), own.root)
    found = named(command.values, command.words, folder)
    contents, links, elsewhere = [], dict[str, str](), dict[str, str]()
    for written, path in sorted(found.paths.items()):
        content = storage.of_path(path, root)
        contents.append(content)
        place = f"{content.place}/{path.name}"
        inside = os.path.normpath(written)
        if not Path(written).expanduser().is_absolute() and not inside.startswith(".."):
            links[inside] = place
        else:
            elsewhere[written] = place
    presets = folder / "conf"
    if presets.is_dir():
        kept = {str(each.relative_to(folder)): each for each in sorted(presets.rglob("*")) if each.suffix in _PRESETS}
        if kept:
            content = storage.of_files("conf", kept, root)
            contents.append(content)
            links["conf"] = f"{content.place}/conf"
    for ref in sorted(found.refs):
        model = sendable.files(ref)
        if model is not None:
            contents.append(Content(ref, f"{root}/cache/checkpoints/{model.id}", model.files))
    words = _words(command, elsewhere, output) if command.adopts else command.words
    return replace(parcel, contents=tuple(contents), links=links, words=words, elsewhere=elsewhere)


def _words(command: Command, elsewhere: Mapping[str, str], output: str) -> tuple[str, ...]:
    """The words of the command there: what names a path outside of its folder names another there."""
    makes = any(value == output for key, value in command.values.items() if not key.startswith("launch"))
    outside = {**elsewhere, **({output: f"outputs/{command.name}"} if makes else {})}
    words = tuple(moved(word, outside) for word in command.words)
    unsaid = [text for text in outside if not any(text in word for word in command.words)]  # a preset says it
    more = [
        f"{key}={_written(value, outside)}"
        for key, value in command.values.items()
        if not key.startswith(("launch", "choice.")) and any(text in each for each in _texts(value) for text in unsaid)
    ]
    return (*words, *more)


def _written(value: Any, places: Mapping[str, str]) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(each, places) for each in value)}]"
    return moved(str(value), places)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(each) for each in value] if isinstance(value, list | tuple) else []


def notes() -> str:
    """What the process there is told of the code, as JSON."""
    return json.dumps(code.described(), ensure_ascii=False)
