"""An archive's files and lines, checked before anything of them is used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from mlops_llm.errors import UserError
from mlops_llm.files import read_object
from mlops_llm.models import code, digested
from mlops_llm.registry.moving.contents import FILES, FORMAT, MANIFEST, Contents, files_of, foul
from mlops_llm.tracking import acceptable
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
_STEP = re.compile(r"-?[0-9]{1,18}")
_WEIGHTS = "digest.weights"


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
    if said := acceptable.refused(contents.runs, contents.checkpoints, contents.models):
        raise foul(place, said[:300])
    _check_files(place, copy, contents)
    for each in contents.checkpoints:
        if code.TAG not in each.tags and _runs_code(copy / FILES / each.id):
            raise foul(place, f"checkpoint {each.id} runs Python code of its own and does not say so ({code.TAG})")
    return contents


def _check_files(place: Path, copy: Path, contents: Contents) -> None:
    """See that files belong to a checkpoint of the archive, and its weights are those that manifest and record name."""
    known = {each.id for each in contents.checkpoints}
    for file in files_of(copy / FILES):
        parts = file.relative_to(copy / FILES).parts
        if len(parts) != 2 or parts[0] not in known:
            raise foul(place, f"'{'/'.join(parts)[:200]}' is no file of a checkpoint")
    if more := sorted(contents.weights.keys() - known):
        raise foul(place, f"the weights of {more[0][:40]} are not those of the manifest")
    for each in contents.checkpoints:
        folder, told = copy / FILES / each.id, contents.weights.get(each.id)
        found = _weights(folder)
        if told != found and (told is not None or any(folder.glob("*.safetensors"))):
            raise foul(place, f"the weights of {each.id} are not those of the manifest")
        if folder.is_dir() and each.tags.get(_WEIGHTS, found) != found:
            raise foul(place, f"the weights of {each.id} are not those that its tag names ({_WEIGHTS})")


def _weights(folder: Path) -> str:
    """Digest of the weights in a folder; empty where they cannot be read."""
    try:
        return digested.digest_now(folder)
    except (UserError, OSError, ValueError, TypeError, OverflowError):
        return ""


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
        if not all(map(_is_input, run.inputs)) or not _rows(run.metrics, "snti") or not _rows(run.makes, "si"):
            raise foul(place, f"the rows of run {run.id} are none of ours")
    for checkpoint in contents.checkpoints:
        if not MODEL_ID.fullmatch(checkpoint.id) or not MODEL_ID.fullmatch(checkpoint.origin):
            raise foul(place, f"'{checkpoint.id[:40]}' is no checkpoint's id")
        if not _STEP.fullmatch(checkpoint.params.get("step") or "0"):
            raise foul(place, f"the step of checkpoint {checkpoint.id} is no number")
        if not _rows(checkpoint.metrics, "sntisoo"):
            raise foul(place, f"the numbers of checkpoint {checkpoint.id} are none of ours")
    for each in contents.models:
        if "'" in each.name or not each.name.strip():
            raise foul(place, f"'{each.name[:40]}' is no registered model's name")


def _is_input(value: Any) -> bool:
    """Whether a value says of a dataset what MLflow does."""
    if not isinstance(value, dict) or value.keys() != _INPUT or not isinstance(value["tags"], dict):
        return False
    texts = [value[each] for each in ("name", "digest", "source_type", "source")]
    tags = [*value["tags"].values()]
    return _rows([[*texts, value["schema"], value["profile"]]], "ssssoo") and _rows([tags], "s" * len(tags))


def _rows(rows: list[list[Any]], kinds: str) -> bool:
    """Whether rows have columns of these kinds: text (s), number (n), whole number (i), time (t), text or nothing (o)."""
    types: dict[str, tuple[type, ...]] = {"s": (str,), "n": (int, float), "i": (int,), "t": (int,), "o": (str, type(None))}
    return all(
        len(row) == len(kinds)
        and all(type(cell) in types[kind] and not (kind == "t" and cell < 0) for cell, kind in zip(row, kinds, strict=True))
        for row in rows
    )


def _read(place: Path, file: Path, kind: type[T]) -> Iterator[T]:
    if not file.is_file() or file.stat().st_size > _LARGEST_LINES:
        raise foul(place, f"{file.name} is missing, or too large")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _built(_plain(json.loads(line.decode())), kind)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise foul(place, f"{file.name}, line {number} is none of ours") from error


def _plain(value: Any) -> Any:
    """A value all of whose texts can be written, and whose whole numbers have 64 bits."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError
    for each in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        _plain(each)
    return value


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
    if said in plain and (not isinstance(value, plain[said]) or isinstance(value, bool)):
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
