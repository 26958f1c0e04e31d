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
_MAKING = ("output", "folder", "file")
"""Settings that name what a command makes."""


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
    made: Mapping[str, str] = field(default_factory=dict)
    """Path outside of the folder that the command is to make, as it is written -> below its folder there."""

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
        if _is_outside(written):
            elsewhere[written] = place
        else:
            links[inside] = place
    for content in _presets(folder, root):
        contents.append(content)
        links["conf"] = f"{content.place}/conf"
    for ref in sorted(found.refs):
        model = sendable.files(ref)
        if model is not None:
            contents.append(Content(ref, f"{root}/cache/checkpoints/{model.id}", model.files))
    made = _made(command, output, elsewhere)
    words = _words(command, {**elsewhere, **made}) if command.adopts else command.words
    kept = {text: inside for text, inside in made.items() if text != output}
    return replace(parcel, contents=tuple(contents), links=links, words=words, elsewhere=elsewhere, made=kept)


def _presets(folder: Path, root: str) -> list[Content]:
    """A user's own presets, in ./conf."""
    found = sorted(each for each in (folder / "conf").rglob("*") if each.suffix in _PRESETS)
    return [storage.of_files("conf", {str(each.relative_to(folder)): each for each in found}, root)] if found else []


def _made(command: Command, output: str, read: Mapping[str, str]) -> dict[str, str]:
    """Paths outside of the folder that settings want made, not read; there they are inside of it."""
    found: dict[str, str] = {}
    for key, value in command.values.items():
        if key.rpartition(".")[2] not in _MAKING or key.startswith("launch") or not isinstance(value, str) or value in read:
            continue
        if _is_outside(value):
            found[value] = f"outputs/{command.name}" if value == output else f"made/{len(found)}/{Path(value).name}"
    return found


def _is_outside(written: str) -> bool:
    return Path(written).expanduser().is_absolute() or os.path.normpath(written).startswith("..")


def _words(command: Command, outside: Mapping[str, str]) -> tuple[str, ...]:
    """The words of the command there: what names a path outside of its folder names another there."""
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
