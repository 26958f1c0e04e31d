"""Measure the rows of a file: lengths in tokens, turns, scripts and languages, labels, exact duplicates.

Rows pass in chunks; what is kept of each is a few numbers (about 60 bytes).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.data import language, tokens
from mlops_llm.data.kinds import Kind, own
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


Summary = dict[str, float]
"""min, mean, p50, p95, max."""


def measure(records: Iterable[Record], kind: Kind, tokenizer: Any, where: str = "") -> Measured:
    """Measure rows.

    Args:
        records: of `formats.records`.
        kind: what the rows are for.
        tokenizer: counts tokens of each text alone, without a template's marks.
        where: the file, for messages.
    """
    found = Measured(kind, lengths={name: array("I") for name in ("prompt", *ANSWERS[kind])})
    seen: set[bytes] = set()
    for chunk in tokens.chunks(records):
        rows = []
        for record in chunk:
            try:
                if record.row is None:
                    raise UserError(record.problem)
                rows.append(own(record.row, kind, where))
            except UserError:
                found.skipped += 1
                continue
            seen.add(identity(record.row))
        _add(found, rows, tokenizer)
    found.duplicates = found.rows - len(seen)
    return found


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


def _add(found: Measured, rows: list[Row], tokenizer: Any) -> None:
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
                shown = str(label)[:40]
                found.labels[shown if shown in found.labels or len(found.labels) < _LABELS else _OTHERS] += 1
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
