"""Versions of datasets: snapshots with a label, kept in the record, made from a file or from other versions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlops_llm import digest
from mlops_llm.data.folders import here, inside, shadows, shipped
from mlops_llm.data.identity import identify
from mlops_llm.data.kinds import Kind
from mlops_llm.data.purpose import NO_PURPOSE, Purpose
from mlops_llm.data.read import Row, Source, raw_digest
from mlops_llm.data.ref import version_of
from mlops_llm.errors import UserError
from mlops_llm.files import writable, write_lines

if TYPE_CHECKING:
    from mlops_llm.tracking.datasets import Registered, Version
    from mlops_llm.tracking.store import Store

FIRST = "v1.0"
_LABEL = re.compile(r"[^\W_][\w.\-]*")


@dataclass(frozen=True)
class Target:
    """A dataset that is to be made from another."""

    name: str
    kind: Kind
    known: Registered | None
    """What is registered under the name."""


@dataclass(frozen=True)
class Derived:
    """A dataset that was made from another."""

    name: str
    path: Path
    label: str
    digests: Mapping[str, str]
    """`raw` and `canonical`."""


def register(
    store: Store,
    source: Source,
    label: str,
    description: str,
    kind: Kind,
    parents: Sequence[str] = (),
    *,
    name: str = "",
    purpose: Purpose = NO_PURPOSE,
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
        purpose: what an evaluation set is for.
    """
    from mlops_llm.tracking import datasets

    facts = {
        "kind": kind.name,
        "description": description,
        "rows": len(source.rows),
        "raw": source.raw,
        "canonical": source.canonical,
        "source": source.raw,
        "ability": purpose.ability,
        "method": ",".join(purpose.method),
    }
    called, label = name or source.name, check_label(label)
    if source.path.is_file() and not source.translated:
        return datasets.add(store, called, label, source.path, facts, parents)
    with TemporaryDirectory() as folder:  # shards, rows of the hub or of a foreign file: one file of ours keeps them
        file = write_rows(Path(folder) / f"{called}.jsonl", source.rows)
        return datasets.add(store, called, label, file, facts | {"raw": digest.raw(file)}, parents)


def target(name: str, kind: Kind) -> Target:
    """See that a dataset of this name can be made, before the work that makes its rows.

    One that is there already gets a new version.

    Raises:
        UserError: the name cannot be one, or is that of another dataset (of another kind, removed from the list, or one that
            ships).
    """
    from mlops_llm.tracking import datasets
    from mlops_llm.tracking.store import connect

    known = datasets.find(connect(), name)
    name = known.name if known else datasets.check_name(name)
    if known and known.current:
        refuse_other(known, kind)
    elif not working_file(name):
        refuse_shadow(name)
    there = working_file(name)
    if there and there.is_dir():
        raise UserError("is a folder of shards, which would be written over", f"datasets/{there.name}", "choose another name=")
    return Target(name, kind, known)


def derive(target: Target, source: Source, rows: Iterable[Row], description: str, parents: Sequence[str] = ()) -> Derived:
    """Write rows that were made from `source` as a dataset of their own, with the source as parent.

    The file appears whole or not at all. An evaluation set made from another is for the same. A dataset whose current version
    holds these very rows gets no new one.

    Args:
        target: what is to be made.
        source: what the rows were made from.
        rows: the new rows.
        description: how the rows were made.
        parents: more parents than `source`.

    Raises:
        UserError: no row is left; or a file of this name lies there that is no version of the dataset, so that it would be
            lost.
    """
    from mlops_llm.tracking.store import connect

    name, known = target.name, target.known
    made = list(rows)
    if not made:
        raise UserError("no row is left", name, "nothing was written")
    path = working_file(name) or here() / f"{name}.jsonl"
    current = known.current if known else None
    canonical = digest.canonical(made)
    if not holds(path, canonical):
        refuse_loss(path, known)
    with written(name, made) as draft:
        result = Source(name, draft, name, made, list(range(1, len(made) + 1)), digest.raw(draft))
        label = current.label if current else ""
        if current is None or current.canonical != canonical:
            label = next_label(known.versions if known else ())
            purpose = Purpose.of(current or version_of(source)) if target.kind is Kind.eval else NO_PURPOSE
            register(connect(), result, label, description, target.kind, [reference(source), *parents], purpose=purpose)
    return Derived(name, path.with_name(f"{name}.jsonl"), label, {"raw": result.raw, "canonical": canonical})


@contextmanager
def written(name: str, rows: Iterable[Row]) -> Iterator[Path]:
    """Give rows as a file that becomes datasets/NAME.jsonl when the block ends well, and vanishes when it does not.

    In the block they are registered, so that what ends early leaves a version without its file, never a file that nothing
    knows of; the same command then brings it back.
    """
    folder = writable(here())
    with TemporaryDirectory(prefix=f".{name}.", dir=folder) as place:
        draft = write_rows(Path(place) / f"{name}.jsonl", rows)
        yield draft
        former = working_file(name)
        draft.replace(folder / draft.name)
        if former and former.name != draft.name:
            former.unlink()


def refuse_shadow(name: str) -> None:
    """See that a new dataset hides none.

    Raises:
        UserError: one of this name ships.
    """
    if shadows(name):
        raise UserError(f"a dataset '{name}' ships with this package and would be hidden", "name", "choose another name=")


def refuse_other(known: Registered, kind: Kind) -> None:
    """See that a dataset can get a version of these rows.

    Raises:
        UserError: it was removed from the list, or holds rows of another kind.
    """
    if not known.listed:
        restore = f"bring it back (op=restore dataset={known.name}), or choose another name="
        raise UserError(f"the dataset '{known.name}' was removed from the list", "name", restore)
    if known.current and known.current.kind != kind.name:
        what = f"'{known.name}' holds rows of kind {known.current.kind}, not {kind.name}"
        raise UserError(what, "name", "choose another name=")


def holds(path: Path, canonical: str) -> bool:
    """Whether a file holds these very rows."""
    return path.is_file() and identify(path).canonical == canonical


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as JSON lines under a temporary name, then rename."""
    return write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def working_file(name: str) -> Path | None:
    """The file or folder of a dataset in ./datasets, which may be edited; None if there is none."""
    return inside(here()).get(name)


def refuse_loss(path: Path, known: Registered | None) -> None:
    """See that a file may be written over: what it holds is kept as a version.

    Raises:
        UserError: it is not.
    """
    if not path.exists():
        return
    kept = {one for each in known.versions for one in (each.raw, each.source)} if known else set()
    if raw_digest(path, ()) in kept:
        return
    held = identify(path).canonical
    if known is None or not held or held not in {version.canonical for version in known.versions}:
        name = known.name if known else path.name.partition(".")[0]
        what = "holds rows that no version has" if known else "is there already and no version has its rows"
        keep = f"op=version dataset={name}" if known else f"op=add dataset={path.name}"
        raise UserError(what, f"datasets/{path.name}", f"keep them first ({keep}), or choose another name=")


def reference(source: Source) -> str:
    """How a version names what it was made from.

    NAME@LABEL; NAME with the beginning of its digest for a file in ./datasets or one that ships; else the path with it.
    """
    if source.version != str(source.path):
        return f"{source.name}@{source.version}"
    ours = source.path.parent in (here(), shipped())
    return f"{source.name if ours else source.path}@{source.canonical[:12]}"


def check_label(label: str) -> str:
    """Return a label that can stand behind `@`.

    Raises:
        UserError: it cannot.
    """
    if re.fullmatch(r"[0-9a-f]{6,}", label):
        what = f"'{label}' could be the beginning of a digest, which also stands behind @"
        raise UserError(what, "op.label", f"write v{label}")
    if not _LABEL.fullmatch(label):
        raise UserError(f"'{label}' cannot be a label", "op.label", "use letters, digits, '-', '_' and '.', such as v1.1")
    return label


def next_label(versions: Sequence[Version]) -> str:
    """The label after the newest of the form vN.M: its second number raised by one."""
    numbers = [(int(found[1]), int(found[2])) for each in versions if (found := re.fullmatch(r"v(\d+)\.(\d+)", each.label))]
    if not numbers:
        return FIRST if not versions else f"v1.{len(versions)}"
    major, minor = max(numbers)
    return f"v{major}.{minor + 1}"
