"""An archive's files and lines, checked before anything of them is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.files import read_object
from mlops_llm.models import code
from mlops_llm.registry.moving.contents import FILES, FORMAT, MANIFEST, Contents, files_of, foul
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
_LARGEST_LINES = 4 << 30
"""Bytes of a file of JSON lines that is read."""
_ENDED = ("FINISHED", "FAILED", "KILLED")
_INPUT = {"name", "digest", "source_type", "source", "schema", "profile", "tags"}


def checked(place: Path, copy: Path) -> Contents:
    """See that every file is as the manifest says, and read the contents.

    Args:
        place: the archive, for a person.
        copy: folder with what was in it.

    Raises:
        UserError: a file, a digest, an id, a state or a type is not what it was, or can be.
    """
    if not (copy / MANIFEST).is_file():
        raise UserError(f"has no {MANIFEST}", str(place), "name a folder or a .tar that op=export_runs wrote")
    try:
        told = read_object(copy / MANIFEST)
    except RecursionError as error:
        raise foul(place, "the manifest is none of ours") from error
    if told.get("format") != FORMAT:
        raise UserError(f"has the format {told.get('format')!r:.40}, and this release reads {FORMAT}", str(place), "update")
    listed, weights = told.get("files"), told.get("weights")
    if not isinstance(listed, dict) or not isinstance(weights, dict):
        raise foul(place, "the manifest lists no files")
    there = {file.relative_to(copy).as_posix(): file for file in files_of(copy)}
    del there[MANIFEST]
    for name in sorted(there.keys() | listed.keys()):
        entry = listed.get(name)
        if name not in there:
            raise foul(place, f"'{name[:200]}' is missing")
        if not isinstance(entry, dict):
            raise foul(place, f"the manifest does not know '{name[:200]}'")
        if there[name].stat().st_size != entry.get("bytes") or _sha(there[name]) != entry.get("sha256"):
            raise foul(place, f"'{name[:200]}' was altered")
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
            raise foul(place, f"the weights of {model[:40]} are not those of the manifest")
    for each in contents.checkpoints:
        if code.TAG not in each.tags and _runs_code(copy / FILES / each.id):
            raise foul(place, f"checkpoint {each.id} runs Python code of its own and does not say so ({code.TAG})")
    return contents


def _runs_code(folder: Path) -> bool:
    """Whether a whole model cannot be loaded without code of its own; what an adapter lies on is not looked at here."""
    try:
        return (folder / "config.json").is_file() and code.needs(read_object(folder / "config.json"))
    except UserError:  # no model, then
        return False


def _check(place: Path, contents: Contents) -> None:
    """See that ids, states and rows are what they can be."""
    for run in contents.runs:
        if not RUN_ID.fullmatch(run.id) or not RUN_ID.fullmatch(run.origin) or run.status not in _ENDED:
            raise foul(place, f"'{run.id[:40]}' is no run that ended")
        inputs = all(isinstance(each, dict) and each.keys() == _INPUT and isinstance(each["tags"], dict) for each in run.inputs)
        if not inputs or not _rows(run.metrics, "snii") or not _rows(run.makes, "si"):
            raise foul(place, f"the rows of run {run.id} are none of ours")
    for checkpoint in contents.checkpoints:
        if not MODEL_ID.fullmatch(checkpoint.id) or not MODEL_ID.fullmatch(checkpoint.origin):
            raise foul(place, f"'{checkpoint.id[:40]}' is no checkpoint's id")
        if not _rows(checkpoint.metrics, "sniisoo"):
            raise foul(place, f"the numbers of checkpoint {checkpoint.id} are none of ours")
    for each in contents.models:
        if "'" in each.name or not each.name.strip():
            raise foul(place, f"'{each.name[:40]}' is no registered model's name")


def _rows(rows: list[list[Any]], kinds: str) -> bool:
    """Whether rows have columns of these kinds: text (s), number (n), whole number (i), text or nothing (o)."""
    types: dict[str, tuple[type, ...]] = {"s": (str,), "n": (int, float), "i": (int,), "o": (str, type(None))}
    return all(
        len(row) == len(kinds) and all(isinstance(cell, types[kind]) for cell, kind in zip(row, kinds, strict=True))
        for row in rows
    )


def _read(place: Path, file: Path, kind: type[T]) -> Iterator[T]:
    if not file.is_file() or file.stat().st_size > _LARGEST_LINES:
        raise foul(place, f"{file.name} is missing, or too large")
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _built(json.loads(line), kind)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise foul(place, f"{file.name}, line {number} is none of ours") from error


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
