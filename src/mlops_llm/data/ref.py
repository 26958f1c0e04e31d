"""The one door to datasets: what a ref stands for, with its rows read and its version told.

`sales_sft` is the file in ./datasets (or among those that ship), else the current version; `sales_sft@v1.0` and
`sales_sft@<digest prefix>` are versions, the latter also the file while its digest begins so; anything with an ending or a
slash is a path, also with `@<digest prefix>` behind it; `hf:org/name` is on the hub.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm import console, digest
from mlops_llm.component import near
from mlops_llm.data.folders import find, here, inside, shipped
from mlops_llm.data.read import ENDINGS, Read, Source, read_path
from mlops_llm.data.read import name as name_of
from mlops_llm.errors import UserError
from mlops_llm.files import expanded
from mlops_llm.record import DatasetInput, Run

if TYPE_CHECKING:
    from mlops_llm.tracking.datasets import Registered, Version
    from mlops_llm.tracking.store import Store

_WHOLE, _SAID = 64, 12
"""Characters of a digest, and of it that are said."""


@dataclass(frozen=True)
class Place:
    """Where a dataset's rows are."""

    name: str
    path: Path
    version: Version | None = None
    """The version asked for, or the current one of a registered dataset whose file this is."""
    pinned: bool = False
    """The ref named the version itself."""

    def reading(self, how: Read) -> Read:
        """Settings for reading the file: a version is kept as it was read, so that those its file needed are not for it."""
        return Read() if self.pinned else how

    def record(self, run: Run, rows: int, digests: dict[str, str]) -> None:
        """Record the file as what a run read; without a canonical digest (a row cannot be read) only its name."""
        run.tags({"dataset": self.name})
        if "canonical" in digests:
            version = self.version.label if self.version and self.version.canonical == digests["canonical"] else str(self.path)
            run.input(DatasetInput(self.name, version, str(self.path), "dataset", rows, digests))


def locate(ref: str, how: Read | None = None) -> Place:
    """Find what a ref stands for.

    Args:
        ref: as a person names it.
        how: how its file is read, where the ref names the digest of its rows.

    Raises:
        UserError: nothing does; near names are given.
    """
    from mlops_llm.tracking import datasets

    expanded(ref)  # refuses what neither a path nor a name can be
    name, at, which = ref.rpartition("@")
    if at and name and not expanded(ref).exists() and ref not in {**inside(shipped()), **inside(here())}:
        store = record()
        known = datasets.find(store, name) if store else None
        if store is None or known is None:
            if path := _file_of_digest(name, which, how):
                return Place(name_of(Path(name)) if _is_path(name) else name, path)
            raise UserError(
                f"no dataset '{name}' is registered{near(name, _registered_names(store))}", ref, _how_to_register(name)
            )
        _say_former(known, name)
        try:
            version = known.version(which)
        except UserError:
            if path := _file_of_digest(known.name, which, how):
                return Place(known.name, path, known.current)
            raise
        return Place(known.name, datasets.snapshot(store, version), version, pinned=True)
    store = None if _is_path(ref) else record()
    known = datasets.find(store, ref) if store else None
    former = known is not None and known.name != ref
    if former and ref in inside(here()):
        return Place(ref, inside(here())[ref])  # a file that took a name which another dataset had
    if known is not None and store is not None:
        _say_former(known, ref)
        if not known.listed:
            raise UserError(
                "was removed from the list", ref, f"bring it back: python -m mlops_llm.data op=restore dataset={ref}"
            )
        path = inside(here()).get(known.name)
        if path is None and known.current:
            return Place(known.name, datasets.snapshot(store, known.current), known.current, pinned=True)
        return Place(known.name, path or find(known.name), known.current)
    return Place(name_of(Path(ref)) if _is_path(ref) else ref, find(ref))


def open_dataset(ref: str, how: Read | None = None) -> Source:
    """Read a dataset; its version is told where the record knows it, and a file that went on from its version says so.

    Raises:
        UserError: there is none, or a row cannot be read.
    """
    how = how or Read()
    place = locate(ref, how)
    source = dataclasses.replace(read_path(place.path, place.reading(how)), name=place.name)
    if place.version is None:
        return source
    if place.pinned or source.canonical == place.version.canonical:
        return dataclasses.replace(source, version=place.version.label)
    for version in _versions(place):
        if version.canonical == source.canonical:
            console.warn(
                f"the file of {place.name} is version {version.label}, not the current {place.version.label}; the file is used"
            )
            return dataclasses.replace(source, version=version.label)
    changed = _rows_that_differ(place, source)
    console.warn(
        f"{place.name} differs from {place.version.label} in {changed}; the file is used (digest {source.canonical[:12]}…); "
        f"keep it: python -m mlops_llm.data op=version dataset={place.name}"
    )
    return source


def version_of(source: Source) -> Version | None:
    """The registered version that a dataset is, or that its file went on from; it tells an evaluation set's ability and method.

    None where the dataset is not registered, or is another file of the same name.

    Args:
        source: what `open_dataset` read.
    """
    from mlops_llm.tracking import datasets

    store = record()
    known = datasets.find(store, source.name) if store else None
    if known is None:
        return None
    if source.version != str(source.path):
        return next((each for each in known.versions if each.label == source.version), None)
    return known.current if source.path.parent in (here(), shipped()) else None


def read_file(ref: str, how: Read) -> Source:
    """Read the file of a dataset as it is now, whatever its versions are.

    Raises:
        UserError: there is no file, or the ref names a version, which is kept already.
    """
    place = locate(ref)
    if place.pinned and place.version:
        label = place.version.label
        if "@" in ref:
            raise UserError(f"is the version {label} itself, which is kept already", ref, "name the dataset, or a file")
        remedy = f"bring it back: op=export dataset={place.name} output=datasets/{place.name}.jsonl"
        raise UserError(f"has no file in datasets/, only versions (current: {label})", ref, remedy)
    return dataclasses.replace(read_path(place.path, how), name=place.name)


def registered(name: str) -> Registered:
    """A registered dataset by its name or a former one.

    Raises:
        UserError: no version of it is registered; near names are given.
    """
    from mlops_llm.tracking import datasets

    store = record()
    known = datasets.find(store, name) if store else None
    if known is None:
        raise UserError(
            f"no version of it is registered{near(name, _registered_names(store))}", name or "dataset", _how_to_register(name)
        )
    _say_former(known, name)
    return known


def record() -> Store | None:
    """The record, where there is one already: to look for a version is no reason to create it."""
    from mlops_llm.tracking.store import connect, exists

    return connect() if exists() else None


def _is_path(ref: str) -> bool:
    return "/" in ref or ref.startswith((".", "~", "hf:")) or ref.endswith(ENDINGS) or Path(ref).is_file()


def lasting(source: Source, asked: str) -> str:
    """A ref that means the same rows for ever, `NAME@DIGEST`; of a file that is no registered version, as long as it stays.

    Args:
        source: what `open_dataset` read.
        asked: the ref that it was asked for.
    """
    before, at, _ = asked.rpartition("@")
    name = before if at and before and not expanded(asked).exists() else asked
    if not _is_path(name):
        name = source.name
    elif not name.startswith("hf:"):
        name = str(expanded(name).absolute())
    return f"{name}@{source.canonical}"


def _file_of_digest(name: str, which: str, how: Read | None) -> Path | None:
    """The file of a dataset if the digest of its rows begins with `which`.

    Raises:
        UserError: a whole digest is named, and the file has other rows now.
    """
    from mlops_llm.data.identity import identify
    from mlops_llm.tracking.datasets import SHORTEST_DIGEST

    if len(which) < SHORTEST_DIGEST or not re.fullmatch(r"[0-9a-f]+", which):
        return None
    try:
        path = find(name)
    except UserError:
        return None
    now = identify(path, how).canonical
    if now.startswith(which):
        return path
    if len(which) == _WHOLE:
        what = f"its rows are others now (digest {now[:_SAID] or 'none'}…, wanted {which[:_SAID]}…)"
        raise UserError(what, name, "bring the old rows back; versions keep them: python -m mlops_llm.data op=version")
    return None


def _say_former(known: Registered, asked: str) -> None:
    if known.name != asked:
        console.warn(f"the dataset '{asked}' is called '{known.name}' now")


def _versions(place: Place) -> tuple[Version, ...]:
    from mlops_llm.tracking import datasets

    store = record()
    known = datasets.find(store, place.name) if store else None
    return known.versions if known else ()


def _rows_that_differ(place: Place, source: Source) -> str:
    from mlops_llm.tracking import datasets

    store = record()
    if store is None or place.version is None:
        return "some rows"
    before = read_path(datasets.snapshot(store, place.version), Read())
    old, new = (Counter(map(digest.row, each.rows)) for each in (before, source))
    count = max((old - new).total(), (new - old).total())
    return f"{count} row{'s' if count != 1 else ''}" if count else "the order of its rows"


def _registered_names(store: Store | None) -> list[str]:
    from mlops_llm.tracking import datasets

    return [each.name for each in datasets.all_registered(store)] if store else []


def _how_to_register(name: str) -> str:
    known = name in {**inside(shipped()), **inside(here())}
    return f"register it: python -m mlops_llm.data op=add dataset={name if known else 'FILE'}"
