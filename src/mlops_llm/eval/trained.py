"""The rows that trainings used, read again from where they are kept, and which of them each training used for what."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm import digest
from mlops_llm.data import hub
from mlops_llm.data.folders import find
from mlops_llm.data.formats import records, watched
from mlops_llm.data.read import Read, Row, raw_digest
from mlops_llm.data.split import is_held_out
from mlops_llm.errors import UserError, first_line
from mlops_llm.tracking.lineage import Lineage, Used

if TYPE_CHECKING:
    from mlops_llm.tracking.store import Store

Rows = Iterator[tuple[str, Row]]
"""Each row with its place for a person."""


@dataclass(frozen=True)
class Kept:
    """Rows that one or several trainings used."""

    name: str
    """`sales_sft@v1.0`; without a version only the dataset's name."""
    rows: Callable[[], Rows]
    """Reads them, from the first on."""
    users: list[Used] = field(default_factory=list)


def belongs(used: Used, place: int, row: Row) -> bool:
    """Whether a training used a row of its file.

    Args:
        used: what the training used of it, and what for.
        place: number of the row, from 0.
        row: the row itself; its digest says whether it was held out.
    """
    if used.context == "evaluation":
        return place < used.rows
    return not used.holdout or is_held_out(row, used.holdout) == (used.context == "validation")


def found(lineage: Lineage, store: Store | None) -> tuple[list[Kept], list[str]]:
    """Where the rows behind a model are, and what is to be said of those that are not there any more.

    A registered version is read from the record; a path, or a file of the same name, only while its content is the same.
    """
    kept, lost = dict[tuple[str, str], Kept](), list[str]()
    for used in lineage.datasets:
        try:
            name, path, how = _located(used, store)
        except (UserError, OSError) as error:
            lost.append(f"{used.name} of run {used.run}: {said(error)}")
            continue
        rows = kept.setdefault((str(path), repr(how)), Kept(name, _reader(path, how)))
        rows.users.append(used)
    return [*kept.values(), *map(_own, lineage.bases)], list(dict.fromkeys(lost))


def said(error: UserError | OSError) -> str:
    """Why rows cannot be read, without where and remedy."""
    return error.what if isinstance(error, UserError) else first_line(error)


def _reader(path: Path, how: Read) -> Callable[[], Rows]:
    def rows() -> Rows:
        for record in watched(path, how, "looking for what is asked in"):
            if record.row is not None:
                yield record.where, record.row

    return rows


def _located(used: Used, store: Store | None) -> tuple[str, Path, Read]:
    """Name, file and how it is read.

    Raises:
        UserError: nothing holds these rows any more.
    """
    why = ""
    for place in (_versions, _files):
        try:
            for name, path, how, is_sure in place(used, store):
                if is_sure or _same(used, path, how):
                    return name, path, how
        except UserError as error:
            why = why or error.what
    raise UserError(f"its rows cannot be checked ({why or 'the file is gone, or has changed since'})")


def _versions(used: Used, store: Store | None) -> Iterator[tuple[str, Path, Read, bool]]:
    from mlops_llm.tracking import datasets

    known = datasets.find(store, _plain_name(used)) if store else None
    if known is None or store is None:
        return
    raw = used.digests.get("raw")
    for version in sorted(known.versions, key=lambda each: (each.raw != raw, each.label != used.version)):
        if version.raw == raw or version.label == used.version:
            is_sure = version.raw == raw and _reading(used) == Read()
            yield f"{known.name}@{version.label}", datasets.snapshot(store, version), Read(), is_sure


def _files(used: Used, store: Store | None) -> Iterator[tuple[str, Path, Read, bool]]:
    how, source = _reading(used), Path(used.source)
    if hub.is_ref(used.source):
        yield used.source, source, how, False
        return
    candidates = [source]
    with contextlib.suppress(UserError):
        candidates.append(find(_plain_name(used)))  # shipped rows lie elsewhere in another installation
    for path in candidates:
        if path.exists() and raw_digest(path, ()) == used.digests.get("raw"):
            yield used.name, path, how, True


def _same(used: Used, path: Path, how: Read) -> bool:
    """Whether a file has the very rows that were used."""
    rows = (record.row for record in records(path, how) if record.row is not None)
    kept = (row for place, row in enumerate(rows) if belongs(used, place, row))
    return digest.canonical(kept) == used.digests["canonical"]


def _plain_name(used: Used) -> str:
    """The dataset's name; `sales_eval` of `sales_eval[20]`, whose first 20 rows were asked."""
    cut = f"[{used.rows}]"
    return used.name.removesuffix(cut) if used.context == "evaluation" else used.name


def _reading(used: Used) -> Read:
    columns = {key.removeprefix("columns."): value for key, value in used.read.items() if key.startswith("columns.")}
    return Read(used.read.get("encoding", "utf-8"), columns or None)


def _own(base: str) -> Kept:
    """What an embedded model was trained on when it was built; it is written again."""
    from mlops_llm.models.tiny import build, corpus

    def rows() -> Rows:
        written: Sequence[corpus.Exchange] = list(dict.fromkeys(corpus.exchanges(0, build.EXCHANGES)))
        for place, each in enumerate(written, 1):
            yield f"exchange {place}", {"prompt": each.prompt, "response": each.response}

    used = Used(f"corpus of {base}", "", "", "training", build.EXCHANGES, {}, base, "", 0.0)
    return Kept(used.name, rows, [used])
