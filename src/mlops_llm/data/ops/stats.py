"""`op=stats`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from mlops_llm import console, files
from mlops_llm.component import component
from mlops_llm.data import stats, tokens
from mlops_llm.data.config import Data, Work
from mlops_llm.data.engine import Engine, Where
from mlops_llm.data.formats import encoding_of, records, watched
from mlops_llm.data.identity import digests
from mlops_llm.data.kinds import Kind, of_rows
from mlops_llm.data.read import name
from mlops_llm.data.ref import Place, locate
from mlops_llm.data.stats import Measured
from mlops_llm.data.validate import HEAD
from mlops_llm.errors import UserError, need
from mlops_llm.record import Grid, Result, Run

_SIMILAR, _NGRAM = 0.8, 3
"""What op=dedup_minhash would take away with its own defaults."""


@component("op", "stats")
@dataclass
class Stats:
    """Measure a dataset: rows, tokens, turns, duplicates, languages, labels; histograms are kept as pictures."""

    records: ClassVar[bool] = True
    model: str = "tiny"
    """Model whose tokenizer counts."""
    near: bool = True
    """Also look for near duplicates, as op=dedup_minhash does; the slowest part on large files."""
    engine: Where = Where.local
    """local measures in this process; ray spreads it over a Ray cluster (RAY_ADDRESS), which pays from several machines on."""

    def prepare(self, request: Data) -> Work:
        """Find the file, its kind and the tokenizer."""
        self.engine.check()
        place = locate(request.wanted())
        path, request = place.path, replace(request, read=place.reading(request.read))
        head = islice(records(path, request.read), HEAD)
        kind = of_rows((record.row for record in head if record.row is not None), path.name, request.kind)
        tokenizer = tokens.tokenizer(self.model)
        return lambda run: self._work(place, kind, tokenizer, request, run)

    def _work(self, place: Place, kind: Kind, tokenizer: Any, request: Data, run: Run) -> Result:
        path, rows = place.path, watched(place.path, request.read, "measuring")
        with self.engine.engine() as engine:
            over = None if self.engine is Where.local else engine
            found = stats.measure(rows, kind, tokenizer, path.name, over)
            if not found.rows:
                raise UserError(f"holds no row that can be used as {kind.name}", path.name, "see op=validate for what is wrong")
            near, note = self._similar(path, kind, request, engine)
        lengths = {each: stats.summarised(values) for each, values in found.lengths.items()}
        facts = {
            "kind": kind.name,
            "rows": found.rows,
            "rows left out": f"{found.skipped} (op=validate says why)" if found.skipped else 0,
            "bytes": console.size(files.size(path)),
            "encoding": encoding_of(path, request.read) or "none (no text file)",
            "characters": found.characters,
            "tokens": sum(map(sum, found.lengths.values())),
            "turns": _spread(found.turns),
            "exact duplicates": found.duplicates,
            "near duplicates": near if near is not None else note,
            "languages": _shares(found.languages),
            "scripts": _shares(found.scripts),
        }
        if found.labels:
            facts["labels"] = ", ".join(f"{label} {times}" for label, times in found.labels.most_common(20))
        _record(run, found, lengths, path, near)
        columns = ["tokens", "min", "mean", "p50", "p95", "max"]
        grid = Grid(f"tokens a row ({self.model})", columns, [[each, *_numbers(values)] for each, values in lengths.items()])
        values: dict[str, Any] = {
            "lengths": lengths,
            "languages": dict(found.languages),
            "scripts": dict(found.scripts),
            "labels": dict(found.labels),
            "turns": dict(found.turns),
            "skipped": found.skipped,
            "bytes": files.size(path),
            "near_duplicates": near,
            "digests": digests(path, request.read),
        }
        place.record(run, found.rows + found.skipped, values["digests"])
        return Result(f"{name(path)}: statistics", facts, values, [grid])

    def _similar(self, path: Path, kind: Kind, request: Data, engine: Engine) -> tuple[int | None, str]:
        """Rows that are nearly, but not exactly, like an earlier one; or why that is not known."""
        if not self.near:
            return None, "not looked for (op.near)"
        try:
            need("rensa", "data")
        except UserError as error:
            return None, f"not looked for: {error}"
        from mlops_llm.data.dedup import minhash, texts
        from mlops_llm.data.dedup.keep import Keep

        rows = stats.usable(watched(path, request.read, "looking for near duplicates in"), kind)
        found = minhash.find(texts.tables(rows), ["prompt", "answer"], Keep.first, _SIMILAR, _NGRAM, engine)
        return sum(score < 1 for score in found.removed["score"].to_pylist()), ""


def _record(run: Run, found: Measured, lengths: dict[str, stats.Summary], path: Path, near: int | None) -> None:
    numbers: dict[str, float] = {
        "data/rows": found.rows,
        "data/rows_left_out": found.skipped,
        "data/bytes": files.size(path),
        "data/characters": found.characters,
        "data/duplicates": found.duplicates,
    }
    if near is not None:
        numbers["data/near_duplicates"] = near
    for part, summary in lengths.items():
        numbers |= {f"data/tokens_{part}/{key}": value for key, value in summary.items()}
    for group, counted in (("language", found.languages), ("script", found.scripts)):
        total = max(1, counted.total())
        numbers |= {f"data/{group}/{key}": times / total for key, times in counted.items() if times}
    run.metrics(numbers, 0)
    for part, values in found.lengths.items():
        run.figure(f"plots/tokens_{part}.png", stats.histogram(f"{part}: tokens a row", values))
    run.figure("plots/languages.png", stats.bars("languages (by script)", "rows", found.languages))
    run.figure("plots/scripts.png", stats.bars("scripts", "characters", found.scripts))


def _numbers(summary: stats.Summary) -> list[float]:
    return [summary[key] for key in ("min", "mean", "p50", "p95", "max")]


def _shares(counted: Counter[str]) -> str:
    total = max(1, counted.total())
    return ", ".join(f"{key} {times / total:.1%}" for key, times in counted.most_common() if times)


def _spread(turns: Counter[int]) -> str:
    total = sum(number * times for number, times in turns.items())
    return f"{min(turns)} to {max(turns)}, mean {total / max(1, turns.total()):.1f}"
