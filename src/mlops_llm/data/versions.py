"""Versions of datasets: snapshots with a label, kept in the record, made from a file or from other versions."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlops_llm import digest
from mlops_llm.data.kinds import Kind, of_rows
from mlops_llm.data.read import ENDINGS, Row, Source
from mlops_llm.errors import UserError
from mlops_llm.files import write_lines

if TYPE_CHECKING:
    from mlops_llm.data.config import Data
    from mlops_llm.tracking.datasets import Registered, Version
    from mlops_llm.tracking.store import Store

FIRST = "v1.0"
_LABEL = re.compile(r"[^\W_][\w.\-]*")


@dataclass(frozen=True)
class Derived:
    """A dataset that was made from another."""

    name: str
    path: Path
    label: str
    digests: Mapping[str, str]
    """`raw` and `canonical`."""


def register(
    store: Store, source: Source, label: str, description: str, kind: Kind, parents: Sequence[str] = (), *, name: str = ""
) -> Version:
    """Keep a source's file as a version and make it current.

    Args:
        store: the record.
        source: the rows as they are in `source.path`.
        label: unique within the dataset.
        description: why this version is.
        kind: what its rows are for.
        parents: what it was made from.
        name: the dataset's name, if it is not the source's.
    """
    from mlops_llm.tracking import datasets

    facts = {
        "kind": kind.name,
        "description": description,
        "rows": len(source.rows),
        "raw": source.raw,
        "canonical": source.canonical,
    }
    called, label = name or source.name, check_label(label)
    if source.path.is_file():
        return datasets.add(store, called, label, source.path, facts, parents)
    with TemporaryDirectory() as folder:  # shards, or rows of the hub: one file keeps them
        file = write_rows(Path(folder) / f"{called}.jsonl", source.rows)
        return datasets.add(store, called, label, file, facts | {"raw": digest.raw(file)}, parents)


def derive(
    request: Data, source: Source, rows: Iterable[Row], ending: str, description: str, parents: Sequence[str] = ()
) -> Derived:
    """Write rows that were made from `source` as a dataset of their own, with the source as parent.

    The file appears whole or not at all. A dataset of this name that is there already gets a new version; where its current
    version holds these very rows, nothing is written.

    Args:
        request: `request.name` names the new dataset; without it the source's name with `ending` does.
        source: what the rows were made from.
        rows: the new rows.
        ending: such as `_dedup`.
        description: how the rows were made.
        parents: more parents than `source`.

    Raises:
        UserError: a file of this name lies there that is no version of the dataset, so that it would be lost.
    """
    from mlops_llm.tracking import datasets
    from mlops_llm.tracking.store import connect

    store = connect()
    name = datasets.check_name(request.name or f"{source.name}{ending}")
    made = list(rows)
    if not made:
        raise UserError("no row is left", name, "nothing was written")
    known = datasets.find(store, name)
    path = working_file(name) or Path.cwd() / "datasets" / f"{name}.jsonl"
    canonical = digest.canonical(made)
    if known and known.current and known.current.canonical == canonical and path.is_file():
        return Derived(name, path, known.current.label, {"raw": digest.raw(path), "canonical": canonical})
    refuse_loss(path, known)
    written = write_rows(path.with_name(f"{name}.jsonl"), made)
    if written != path:
        path.unlink(missing_ok=True)
    result = Source(name, written, name, made, list(range(1, len(made) + 1)), digest.raw(written))
    kind = of_rows(made, name, request.kind)
    label = next_label(known.versions if known else ())
    register(store, result, label, description, kind, [reference(source), *parents])
    return Derived(name, written, label, {"raw": result.raw, "canonical": canonical})


def renamed(request: Data, name: str) -> Data:
    """The same request with another name for what comes out."""
    return dataclasses.replace(request, name=name)


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as JSON lines under a temporary name, then rename."""
    return write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def working_file(name: str) -> Path | None:
    """The file of a dataset in ./datasets, which may be edited; None if there is none."""
    for ending in ENDINGS:
        path = Path.cwd() / "datasets" / f"{name}{ending}"
        if path.is_file():
            return path.absolute()
    return None


def refuse_loss(path: Path, known: Registered | None) -> None:
    """See that a file may be written over: what it holds is kept as a version.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        return
    held = digest.raw(path)
    if known is None or held not in {version.raw for version in known.versions}:
        name = known.name if known else path.name.partition(".")[0]
        what = "holds rows that no version has" if known else "is there already and no version has its rows"
        keep = f"op=version dataset={name}" if known else f"op=add dataset={path.name}"
        raise UserError(what, f"datasets/{path.name}", f"keep them first ({keep}), or choose another name=")


def reference(source: Source) -> str:
    """How a version names what it was made from: NAME@LABEL, or the path with the beginning of its digest."""
    if source.version != str(source.path):
        return f"{source.name}@{source.version}"
    return f"{source.path}@{source.canonical[:12]}"


def check_label(label: str) -> str:
    """Return a label that can stand behind `@`.

    Raises:
        UserError: it cannot.
    """
    if not _LABEL.fullmatch(label) or re.fullmatch(r"[0-9a-f]{6,}", label):
        raise UserError(f"'{label}' cannot be a label", "op.label", "use letters, digits, '-', '_' and '.', such as v1.1")
    return label


def next_label(versions: Sequence[Version]) -> str:
    """The label after the newest of the form vN.M: its second number raised by one."""
    numbers = [(int(found[1]), int(found[2])) for each in versions if (found := re.fullmatch(r"v(\d+)\.(\d+)", each.label))]
    if not numbers:
        return FIRST if not versions else f"v1.{len(versions)}"
    major, minor = max(numbers)
    return f"v{major}.{minor + 1}"
