"""How two versions of a dataset differ, row by row and field by field."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm import digest
from mlops_llm.data.read import Row

NEAR = 0.6
"""Least similarity (difflib's ratio of the texts) by which two rows count as one that was changed."""
MOST_PAIRS = 250_000
"""Comparisons of rows without a common key; beyond them rows count as removed and added, since each pair costs a diff."""


@dataclass(frozen=True)
class Change:
    """A row that is in both, with other content."""

    before: Row
    after: Row

    @property
    def fields(self) -> dict[str, tuple[Any, Any]]:
        """Field -> (before, after), of those that differ."""
        names = dict.fromkeys([*self.before, *self.after])
        pairs = {name: (self.before.get(name), self.after.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Difference:
    """What it takes to get from one list of rows to another."""

    added: list[Row]
    removed: list[Row]
    changed: list[Change]
    same: int
    """Rows that are in both, wherever they stand."""
    moved: bool
    """The rows that both have stand in another order."""
    unpaired: bool = False
    """There were too many other rows to look for the nearest."""


def compare(before: Sequence[Row], after: Sequence[Row], key: str = "") -> Difference:
    """Compare two lists of rows.

    Equal rows are paired first, as often as they occur. Of the others, those with the same `key` (without one: the same
    prompt) are one row that was changed; then the nearest texts are, if they are near enough.

    Args:
        before: rows then.
        after: rows now.
        key: field that names a row, such as `id`.
    """
    old, new = _unpaired(before, after)
    kept_before = [digest.row(row) for place, row in enumerate(before) if place not in old]
    kept_after = [digest.row(row) for place, row in enumerate(after) if place not in new]
    changed = _by_key(before, after, old, new, key or "prompt")
    unpaired = not key and len(old) * len(new) > MOST_PAIRS
    if not key and not unpaired:
        changed += _by_nearness(before, after, old, new)
    changed.sort(key=lambda pair: pair[1])
    return Difference(
        [after[place] for place in sorted(new)],
        [before[place] for place in sorted(old)],
        [Change(before[then], after[now]) for then, now in changed],
        len(kept_before),
        kept_before != kept_after,
        unpaired,
    )


def _unpaired(before: Sequence[Row], after: Sequence[Row]) -> tuple[set[int], set[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(before):
        places[digest.row(row)].append(place)
    old, new = set(range(len(before))), set()
    for place, row in enumerate(after):
        same = places[digest.row(row)]
        if same:
            old.discard(same.pop(0))
        else:
            new.add(place)
    return old, new


def _by_key(before: Sequence[Row], after: Sequence[Row], old: set[int], new: set[int], key: str) -> list[tuple[int, int]]:
    named: dict[str, list[int]] = defaultdict(list)
    for place in sorted(old):
        if key in before[place]:
            named[digest.row({key: before[place][key]})].append(place)
    pairs = []
    for place in sorted(new):
        same = named[digest.row({key: after[place][key]})] if key in after[place] else []
        if same:
            pairs.append((same.pop(0), place))
    old -= {then for then, _ in pairs}
    new -= {now for _, now in pairs}
    return pairs


def _by_nearness(before: Sequence[Row], after: Sequence[Row], old: set[int], new: set[int]) -> list[tuple[int, int]]:
    scored = []
    for now in new:
        matcher = difflib.SequenceMatcher(None, autojunk=False)
        matcher.set_seq2(_text(after[now]))
        for then in old:
            matcher.set_seq1(_text(before[then]))
            if matcher.real_quick_ratio() >= NEAR and matcher.quick_ratio() >= NEAR and (score := matcher.ratio()) >= NEAR:
                scored.append((-score, then, now))
    pairs = []
    for _, then, now in sorted(scored):
        if then in old and now in new:
            pairs.append((then, now))
            old.discard(then)
            new.discard(now)
    return pairs


def _text(row: Row) -> str:
    return "\n".join(str(value) for _, value in sorted(row.items()))
