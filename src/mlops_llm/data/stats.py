"""Measure the rows of a file: lengths in tokens, turns, scripts and languages, labels, exact duplicates.

Rows pass in chunks; what is kept of each is a few numbers (about 60 bytes).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mlops_llm.data import language, parted, tokens
from mlops_llm.data.engine import Engine
from mlops_llm.data.kinds import Kind, own
from mlops_llm.data.parted import Numbered
from mlops_llm.data.rows import Record, Row
from mlops_llm.data.structure import ANSWERS, parts
from mlops_llm.data.validate import identity
from mlops_llm.errors import UserError

_LABELS = 50
"""Labels that are counted one by one."""
_OTHERS = "(all others)"


@dataclass
class Measured:
    """What was measured."""

    kind: Kind
    rows: int = 0
    skipped: int = 0
    """Rows that could not be read or lack what their kind needs; they are in no other number."""
    characters: int = 0
    lengths: dict[str, array[int]] = field(default_factory=dict)
    """`prompt` and each answer's name -> tokens of every row."""
    turns: Counter[int] = field(default_factory=Counter)
    """Number of turns by user and assistant -> rows."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Script -> characters."""
    languages: Counter[str] = field(default_factory=Counter)
    """Language -> rows."""
    labels: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    """Rows that equal an earlier one in every nested value."""

    def add(self, other: Measured) -> None:
        """Join the measures of the rows that follow."""
        self.rows, self.skipped = self.rows + other.rows, self.skipped + other.skipped
        self.characters += other.characters
        for name, lengths in other.lengths.items():
            self.lengths[name].extend(lengths)
        for name in ("turns", "scripts", "languages"):
            getattr(self, name).update(getattr(other, name))
        for label, times in other.labels.items():
            self.labels[label if label in self.labels or len(self.labels) < _LABELS else _OTHERS] += times

    def plain(self) -> dict[str, Any]:
        """All of it but the kind, as JSON holds it."""
        counted = {name: list(getattr(self, name).items()) for name in _COUNTED}
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {**counted, **numbers, "lengths": {name: list(lengths) for name, lengths in self.lengths.items()}}

    @classmethod
    def of(cls, kind: Kind, told: Mapping[str, Any]) -> Measured:
        """What `plain` told."""
        lengths = {name: array("I", numbers) for name, numbers in told["lengths"].items()}
        others: dict[str, Any] = {name: Counter(dict(told[name])) for name in _COUNTED}
        return cls(kind, lengths=lengths, **others, **{name: told[name] for name in _NUMBERS})


_COUNTED, _NUMBERS = ("turns", "scripts", "languages", "labels"), ("rows", "skipped", "characters")
Summary = dict[str, float]
"""min, mean, p50, p95, max."""


def measure(records: Iterable[Record], kind: Kind, tokenizer: Any, where: str = "", engine: Engine | None = None) -> Measured:
    """Measure rows.

    Args:
        records: of `formats.records`.
        kind: what the rows are for.
        tokenizer: counts tokens of each text alone, without a template's marks.
        where: the file, for messages.
        engine: where parts of the rows are measured; None does it here. The numbers are the same.
    """
    found = Measured(kind, lengths={name: array("I") for name in ("prompt", *ANSWERS[kind])})
    seen: set[bytes] = set()
    if engine is None:
        for chunk in tokens.chunks(records):
            part, same = _measured(chunk, kind, tokenizer, where)
            found.add(part)
            seen |= same
    else:
        for told in parted.each(partial(_part, kind=kind, tokenizer=tokenizer, where=where), records, engine):
            found.add(Measured.of(kind, told["measured"]))
            seen.update(map(bytes.fromhex, told["same"]))
    found.duplicates = found.rows - len(seen)
    return found


def _part(rows: list[Numbered], kind: Kind, tokenizer: Any, where: str) -> dict[str, Any]:
    """The measures of some of the rows, and what tells equal ones."""
    part, same = _measured([record for _, record in rows], kind, tokenizer, where)
    return {"measured": part.plain(), "same": [each.hex() for each in same]}


def _measured(records: Iterable[Record], kind: Kind, tokenizer: Any, where: str) -> tuple[Measured, set[bytes]]:
    """The measures of some rows, and what tells equal ones."""
    found, rows, same = Measured(kind, lengths={name: array("I") for name in ("prompt", *ANSWERS[kind])}), [], set[bytes]()
    for record in records:
        try:
            if record.row is None:
                raise UserError(record.problem)
            rows.append(own(record.row, kind, where))
        except UserError:
            found.skipped += 1
            continue
        same.add(identity(record.row))
    _measure(found, rows, tokenizer)
    return found, same


def usable(records: Iterable[Record], kind: Kind) -> Iterator[tuple[int, Row]]:
    """The rows that have what their kind needs, with its own fields, each with its line."""
    for record in records:
        if record.row is not None:
            try:
                yield record.line, own(record.row, kind, "")
            except UserError:
                continue


def summarised(values: Sequence[int]) -> Summary:
    """Least, mean, 50th and 95th percentile and most; percentiles are values that occur (nearest rank)."""
    if not values:
        return {}
    ordered = sorted(values)

    def percentile(share: float) -> int:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    mean = sum(ordered) / len(ordered)
    return {"min": ordered[0], "mean": mean, "p50": percentile(0.5), "p95": percentile(0.95), "max": ordered[-1]}


def histogram(title: str, values: Sequence[int], mark: int | None = None) -> Any:
    """A matplotlib picture of how long texts are; `mark` draws a limit."""
    import numpy as np

    figure, axes = _axes(title, "tokens", "rows")
    # Bins of whole tokens: others would show teeth that are not there.
    least, most = min(values), max(values)
    width = max(1, -(-(most - least + 1) // 50))
    axes.hist(np.asarray(values), bins=np.arange(least, most + width + 1, width) - 0.5, color="tab:blue")
    middle = summarised(values)
    for name in ("p50", "p95"):
        axes.axvline(middle[name], color="grey", linestyle=":", linewidth=1)
        axes.annotate(
            f"{name} {middle[name]:.0f}", (middle[name], 0.97), xycoords=("data", "axes fraction"), fontsize=8, va="top"
        )
    if mark is not None and mark <= most:
        axes.axvline(mark, color="crimson", linewidth=1)
    return figure


def bars(title: str, what: str, counted: Counter[str]) -> Any:
    """A matplotlib picture of shares."""
    figure, axes = _axes(title, "", what)
    named = [(name, times) for name, times in counted.most_common() if times]
    axes.bar([name for name, _ in named], [times for _, times in named], color="tab:blue")
    return figure


def _measure(found: Measured, rows: list[Row], tokenizer: Any) -> None:
    if not rows:
        return
    columns = [list(column) for column in zip(*(parts(row, found.kind) for row in rows), strict=True)]
    for lengths, column in zip(found.lengths.values(), columns, strict=True):
        lengths.extend(tokens.lengths(tokenizer, column))
    whole = ["\n".join(each) for each in zip(*columns, strict=True)]
    counted = language.counts(whole)
    found.characters += sum(map(len, whole)) - len(whole) * (len(columns) - 1)
    found.scripts.update(dict(zip(language.SCRIPTS, map(int, counted.sum(0)), strict=True)))
    found.languages.update(language.LANGUAGES[guess] for guess in language.languages(counted))
    found.turns.update(_turns(row) for row in rows)
    if found.kind is not Kind.dpo:
        for row in rows:
            label = row.get("label")
            if label is not None:
                found.labels[str(label)[:40]] += 1
    found.rows += len(rows)


def _turns(row: Row) -> int:
    told = row.get("messages")
    if not isinstance(told, list):
        return 2 if "response" in row or "chosen" in row else 1
    return ("chosen" in row) + sum(isinstance(turn, dict) and turn.get("role") in ("user", "assistant") for turn in told)


def _axes(title: str, below: str, left: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(below)
    axes.set_ylabel(left)
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    return figure, axes
