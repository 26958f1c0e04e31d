"""What the operations that remove duplicates share: reading, writing what is left, and telling what went."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mlops_llm.component import near
from mlops_llm.console import Progress
from mlops_llm.data import ref, versions
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.engine import Where
from mlops_llm.data.kinds import Kind, of_rows, own
from mlops_llm.data.read import Row, Source
from mlops_llm.data.texts import bare
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result, Run

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_llm.data.config import Data, Work
    from mlops_llm.data.dedup.found import Found
    from mlops_llm.data.engine import Engine

CUT = 200
"""Characters of a text in tables; more is for the dataset itself."""
WRITTEN = 10_000
"""Pairs that are listed with their texts; further ones with lines, score and cluster only."""
SHOWN = 5
ROWS = "removed_rows.jsonl"
"""File of the rows that went, whole, in the order of removed.json."""
REVIEW = "to_review.json"
"""File of the pairs somewhat below the threshold."""


@dataclass
class Dedup(ABC):
    """Remove duplicates; NAME_dedup is written and registered with the dataset as its parent."""

    records: ClassVar[bool] = True
    title: ClassVar[str]
    apart: ClassVar[str]
    """File of the pairs that look alike and stay."""

    fields: list[str] = field(default_factory=lambda: ["prompt", "answer"])
    """What is compared: prompt (all that is asked), answer (all that is answered), solution."""
    keep: Keep = Keep.first
    """Which of several equal rows stays: the first, or the one with the longest texts."""
    dry_run: bool = False
    """Only show the pairs; nothing is written."""
    engine: Where = Where.local
    """local does it in this process; ray spreads it over a Ray cluster (RAY_ADDRESS), which pays from several machines on."""

    def __post_init__(self) -> None:
        """Check what is to be compared."""
        known = ("prompt", "answer", "solution")
        remedy = f"one or more of: {', '.join(known)}"
        for name in self.fields:
            if name not in known:
                raise UserError(f"there is no field '{name}'{near(name, known)}", "op.fields", remedy)
        if not self.fields or len(set(self.fields)) != len(self.fields):
            raise UserError(f"is [{', '.join(self.fields)}]", "op.fields", f"{remedy}, each once")

    @abstractmethod
    def find(self, tables: Iterable[pa.Table], engine: Engine) -> Found:
        """Find the duplicates."""

    @abstractmethod
    def ready(self) -> None:
        """Check what the search needs, before anything is read.

        Raises:
            UserError: a library, model or server is missing.
        """

    def prepare(self, request: Data) -> Work:
        """Check the settings and the rows' kind."""
        self.engine.check()
        self.ready()
        source = ref.open_dataset(request.wanted(), request.read)
        kind = of_rows(source.rows, str(source.path), request.kind)
        target = None if self.dry_run else versions.target(request.name or f"{source.name}_dedup", kind)
        return lambda run: self._work(source, kind, target, run)

    def _work(self, source: Source, kind: Kind, target: versions.Target | None, run: Run) -> Result:
        from mlops_llm.data.dedup import texts

        run.input(source.as_input())
        with self.engine.engine() as engine:
            found = self.find(texts.tables(_own(source, kind)), engine)
        gone = frozenset(found.removed["id"].to_pylist())
        shown = _texts(source, kind, self.fields, _named(found))
        listed = {
            "removed.json": self._removed(found, source, shown),
            self.apart: _different(found.different, source, shown),
            REVIEW: _different(found.review, source, shown),
        }
        for name, columns in listed.items():
            if columns["line"]:
                run.artifact(name, columns)
        if target and gone:
            run.artifact(ROWS, "".join(json.dumps(source.rows[one], ensure_ascii=False) + "\n" for one in sorted(gone)))
        left = found.rows - len(gone)
        run.metrics({"rows/original": found.rows, "rows/removed": len(gone), "rows/left": left}, 0)
        told = ("embedder", "threshold", "compared by")
        run.tags({f"dedup.{key.replace(' ', '_')}": found.facts[key] for key in told if key in found.facts})
        values: dict[str, Any] = {
            "rows": {"original": found.rows, "removed": len(gone), "left": left},
            "different": len(found.different) + found.unlisted,
            "to_review": len(found.review) + found.unreviewed,
            "facts": dict(found.facts),
            "dry_run": self.dry_run,
            "digests": source.digests,
        }
        table: dict[str, Any] = self._table(found, len(gone), source)
        if target:
            rows = (row for place, row in enumerate(source.rows) if place not in gone)
            made = versions.derive(target, source, rows, f"{source.name} without {len(gone)} rows: {self.title}")
            values["written"] = {"name": made.name, "path": str(made.path), "version": made.label}
            values["digests"] = dict(made.digests)
            table["written"] = f"{made.path} ({made.name}@{made.label})"
        else:
            table["written"] = "nothing (op.dry_run)"
        return Result(self.title, table, values, _grids(listed, self.apart))

    def _table(self, found: Found, gone: int, source: Source) -> dict[str, Any]:
        table: dict[str, Any] = {
            "dataset": f"{source.name} ({source.version})",
            "rows": f"{found.rows:,}",
            "removed": f"{gone:,} ({gone / max(1, found.rows):.1%})",
            "left": f"{found.rows - gone:,}",
        }
        apart = len(found.different) + found.unlisted
        if apart:
            listed = f" ({len(found.different):,} listed)" if found.unlisted else ""
            table[_words(self.apart)] = f"{_pairs(apart)}, kept{listed}"
        if len(found.review):
            listed = f" ({len(found.review):,} listed)" if found.unreviewed else ""
            table["to review"] = f"{_pairs(len(found.review) + found.unreviewed)} below the threshold, kept{listed}"
        return table | {key: value for key, value in found.facts.items() if key != "embedder"}

    def _removed(self, found: Found, source: Source, shown: dict[int, str]) -> dict[str, list[Any]]:
        ids, equals = found.removed["id"].to_pylist(), found.removed["equals"].to_pylist()
        clusters = {one: number for number, one in enumerate(sorted(set(equals)), 1)}
        return {
            "line": _lines(source, ids),
            "equals_line": _lines(source, equals),
            "score": [round(score, 4) for score in found.removed["score"].to_pylist()],
            "cluster": [clusters[one] for one in equals],
            "compared": [", ".join(self.fields)] * len(ids),
            "differ": [_apart(source.rows[one], source.rows[other]) for one, other in zip(ids, equals, strict=True)],
            "text": [shown.get(one, "") for one in ids],
            "equals_text": [shown.get(one, "") for one in equals],
        }


def _apart(row: Row, other: Row) -> str:
    """The fields in which two rows of a file differ."""
    return ", ".join(name for name in {**other, **row} if name not in row or name not in other or row[name] != other[name])


def _own(source: Source, kind: Kind) -> Iterator[tuple[int, Row]]:
    """Rows in this project's fields, with their lines."""
    progress = Progress("reading rows", len(source.rows))
    for place, (line, row) in enumerate(zip(source.lines, source.rows, strict=True)):
        if place % 4096 == 0:
            progress.at(place)
        yield line, own(row, kind, source.where(place))
    progress.at(len(source.rows))
    progress.close()


def _named(found: Found) -> frozenset[int]:
    """Rows whose texts are listed."""
    tables = [table.slice(0, WRITTEN) for table in (found.removed, found.different, found.review)]
    return frozenset(one for table in tables for name in ("id", "equals") for one in table[name].to_pylist())


def _texts(source: Source, kind: Kind, fields: list[str], wanted: frozenset[int]) -> dict[int, str]:
    """The compared texts of some rows, cut."""
    from mlops_llm.data.dedup import texts

    chosen = sorted(wanted)
    found = {}
    rows = ((source.lines[one], own(source.rows[one], kind, source.where(one))) for one in chosen)
    compared = (row for table in texts.tables(rows) for row in table.select(fields).to_pylist())
    for one, row in zip(chosen, compared, strict=True):
        text = bare(" ⏎ ".join(each for each in row.values() if each))
        found[one] = text if len(text) <= CUT else f"{text[: CUT - 1]}…"
    return found


def _lines(source: Source, rows: list[int]) -> list[Any]:
    """Lines of rows; in a folder, where lines begin again with each file, with the file's name."""
    return [source.where(one) if source.files else source.lines[one] for one in rows]


def _different(pairs: pa.Table, source: Source, shown: dict[int, str]) -> dict[str, list[Any]]:
    ids, others = pairs["id"].to_pylist(), pairs["equals"].to_pylist()
    return {
        "line": _lines(source, ids),
        "other_line": _lines(source, others),
        "score": [round(score, 4) for score in pairs["score"].to_pylist()],
        "differ": pairs["differ"].to_pylist(),
        "text": [shown.get(one, "") for one in ids],
        "other_text": [shown.get(one, "") for one in others],
    }


def _grids(tables: dict[str, dict[str, list[Any]]], apart: str) -> list[Grid]:
    """The first pairs of each sort."""
    removed, different, review = tables["removed.json"], tables[apart], tables[REVIEW]
    grids = []
    if removed["line"]:
        rows = _rows(removed, "line", "equals_line", "score", "differ", "text", "equals_text")
        heads = ("line", "equals line", "score", "differ in", "text", "equals")
        grids.append(Grid(_first("removed", removed), heads, rows))
    if different["line"]:
        heads = ("line", "other line", "score", "differ in", "text", "other text")
        rows = _rows(different, "line", "other_line", "score", "differ", "text", "other_text")
        grids.append(Grid(_first(f"kept: {_words(apart)}", different), heads, rows))
    if review["line"]:
        columns = ("line", "other line", "score", "text", "other text")
        rows = _rows(review, "line", "other_line", "score", "text", "other_text")
        grids.append(Grid(_first("kept: to review, the most similar first", review), columns, rows))
    return grids


def _first(title: str, table: dict[str, list[Any]]) -> str:
    count = len(table["line"])
    return title if count <= SHOWN else f"{title}, the first {SHOWN} of {count:,}"


def _rows(table: dict[str, list[Any]], *names: str) -> list[list[Any]]:
    return [[_cell(cell) for cell in row] for row in zip(*(table[name][:SHOWN] for name in names), strict=True)]


def _cell(value: Any, most: int = 60) -> Any:
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _pairs(count: int) -> str:
    return f"{count:,} pair{'s' if count != 1 else ''}"


def _words(file: str) -> str:
    return file.removesuffix(".json").replace("_", " ")
