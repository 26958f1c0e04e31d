"""Which rows go, once pairs of similar rows are known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlops_llm.data.dedup import exact, guards
from mlops_llm.data.dedup.found import PAIRS, Found
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.texts import normal
from mlops_llm.data.engine import Engine
from mlops_llm.data.texts import bare

Ints = npt.NDArray[np.int64]
LISTED = 10_000
"""Pairs that are listed as similar but different, or for a person to look at; the rest is counted."""
_ASIDE = np.dtype([("first", np.int64), ("second", np.int64), ("score", np.float64)])


class Distinct(NamedTuple):
    """One row of each text, in the order of preference."""

    rows: pa.Table
    """`id`, `text` (all compared fields, after `texts.normal`) and `solution`; `place` counts them from 0."""
    equal: pa.Table
    """`PAIRS` of the rows that were equal to one of them."""
    total: int
    """Rows in all."""


def distinct(tables: Any, fields: Sequence[str], keep: Keep, engine: Engine) -> Distinct:
    """Bring spellings together and take one row of each text, which all searches by similarity begin with.

    Rows without text are left alone: they are neither compared nor removed.
    """
    texts = pa.concat_tables(list(engine.map(partial(_joined, fields=fields), tables)) or [_EMPTY])
    total = len(texts)
    ranked = _ranked(texts.filter(pc.not_equal(texts["text"], "")), keep)
    # Here ids are places in the order of preference; a text with two solutions is two rows.
    step = partial(exact.duplicates, fields=["text"], keep=Keep.first)
    gone = pa.concat_tables(list(engine.by_key(step, [ranked], "text")))
    ids = ranked["row"].to_numpy()
    one, other = gone["id"].to_numpy(), gone["equals"].to_numpy()
    stays = np.ones(len(ranked), bool)
    stays[one] = False
    equal = pa.table([pa.array(ids[one]), pa.array(ids[other]), gone["score"], gone["differ"]], schema=PAIRS)
    rows = ranked.filter(pa.array(stays)).select(["row", "text", "solution"]).rename_columns(["id", "text", "solution"])
    return Distinct(rows.add_column(0, "place", pa.array(np.arange(len(rows)))), equal, total)


_JOINED = pa.schema([("row", pa.int64()), ("text", pa.large_string()), ("solution", pa.large_string()), ("length", pa.int64())])
_EMPTY = _JOINED.empty_table()


def _joined(table: pa.Table, fields: Sequence[str]) -> pa.Table:
    """The step: one text of all fields, as it is compared, and the length of the whole row."""
    length = exact.lengths(table)
    table = normal(table, fields, case=False, ends=True)
    columns = [pc.fill_null(table[name], "") for name in fields]
    text = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, pa.scalar("\n", pa.large_string()))
    text = pc.utf8_trim_whitespace(text)
    return pa.table([table["id"], text, table["solution"], pa.array(length)], schema=_JOINED)


def _ranked(texts: pa.Table, keep: Keep) -> pa.Table:
    """Rows in the order of preference, numbered by it."""
    by = [("row", "ascending")] if keep is Keep.first else [("length", "descending"), ("row", "ascending")]
    ranked = texts.sort_by(by)
    return ranked.add_column(0, "id", pa.array(np.arange(len(ranked))))


class Settling:
    """Takes similar pairs and decides: the later row goes if the earlier one stays and the guards agree.

    So every row that goes was itself compared with the row that stays, and no two rows that stay are the same: to search
    again finds nothing. (Connected components would not do: the ends of a chain a~b~c may have nothing in common.)
    """

    def __init__(self, rows: Distinct) -> None:
        """Begin with all rows staying."""
        self._rows = rows
        self.texts: Any = rows.rows["text"].combine_chunks()
        self._solutions: Any = rows.rows["solution"].combine_chunks()
        self.equals = np.full(len(rows.rows), -1, np.int64)
        """Place of the row that each row equals; -1 where it stays."""
        self._score = np.zeros(len(rows.rows))
        self._code = np.full(len(rows.rows), -1, np.int64)
        self._codes: dict[guards.Traits, int] = {}
        self._different: list[tuple[int, int, float, str]] = []
        self._unlisted = 0
        self._aside = np.zeros(0, _ASIDE)
        self._asides = 0

    @property
    def stays(self) -> npt.NDArray[np.bool_]:
        """Which rows stay so far."""
        return self.equals < 0

    def text(self, place: int) -> str:
        """A row's text, as it is searched by: whether it asks is for the guards."""
        return "\n".join(field.rstrip("? ") for field in bare(self._compared(place)).split("\n"))

    def _compared(self, place: int) -> str:
        return str(self.texts[place].as_py())

    def pairs(self, first: Ints, second: Ints, score: npt.NDArray[np.float64]) -> None:
        """Take pairs of places, `first` before `second`, ordered by both."""
        first, second, score = self._open(first, second, score)
        alike = self._code[first] == self._code[second]
        for one, other, how in zip(first[alike].tolist(), second[alike].tolist(), score[alike].tolist(), strict=True):
            if self.equals[one] < 0 and self.equals[other] < 0:
                self._decide(one, other, how)
        apart = ~alike & self.stays[first] & self.stays[second]
        room = max(0, LISTED - len(self._different))
        shown = np.flatnonzero(apart)[:room]
        self._unlisted += int(apart.sum()) - len(shown)
        traits = list(self._codes)
        for place in shown.tolist():
            one, other = int(first[place]), int(second[place])
            differ = guards.differences(traits[self._code[one]], traits[self._code[other]])
            self._different.append((one, other, float(score[place]), differ))

    def put_aside(self, first: Ints, second: Ints, score: npt.NDArray[np.float64]) -> None:
        """Take pairs below the threshold: where the guards agree, a person may want to look at them."""
        first, second, score = self._open(first, second, score)
        alike = self._code[first] == self._code[second]
        more = np.zeros(int(alike.sum()), _ASIDE)
        more["first"], more["second"], more["score"] = first[alike], second[alike], score[alike]
        self._asides += len(more)
        both = np.concatenate([self._aside, more])
        self._aside = both[np.argsort(-both["score"], kind="stable")[: 2 * LISTED]]  # some of their rows may still go

    def _open(self, first: Ints, second: Ints, score: npt.NDArray[np.float64]) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
        """The pairs both of whose rows stay so far, their traits read."""
        open_ = self.stays[first] & self.stays[second]
        first, second, score = first[open_], second[open_], score[open_]
        for place in np.unique(np.concatenate([first, second])):
            self._read(int(place))
        return first, second, score

    def _read(self, place: int) -> None:
        if self._code[place] < 0:
            found = guards.traits(self._compared(place), self._solutions[place].as_py())
            self._code[place] = self._codes.setdefault(found, len(self._codes))

    def _decide(self, one: int, other: int, score: float) -> None:
        if not guards.reordered(self.text(one), self.text(other)):
            self.equals[other], self._score[other] = one, score
        elif len(self._different) < LISTED:
            self._different.append((one, other, score, "word order"))
        else:
            self._unlisted += 1

    def found(self, facts: dict[str, Any]) -> Found:
        """What came of it, with rows named by their ids."""
        ids = self._rows.rows["id"].to_numpy()
        gone = np.flatnonzero(~self.stays)
        near = {int(ids[place]): (int(ids[self.equals[place]]), float(self._score[place])) for place in gone}
        removed = [(one, *near[one], "") for one in near]
        for pair in self._rows.equal.to_pylist():
            equals, score = near.get(pair["equals"], (pair["equals"], 1.0))
            removed.append((pair["id"], equals, score, ""))
        # A row that went after its pair was listed is no longer one of the rows that stay.
        kept = {(one, other): (score, differ) for one, other, score, differ in self._different}
        different = [
            (int(ids[other]), int(ids[one]), score, differ)
            for (one, other), (score, differ) in kept.items()
            if self.stays[one] and self.stays[other]
        ]
        aside = self._aside[self.stays[self._aside["first"]] & self.stays[self._aside["second"]]][:LISTED]
        review = [(int(ids[other]), int(ids[one]), float(score), "") for one, other, score in aside]
        over = self._asides - len(self._aside)
        return Found(
            self._rows.total, _table(sorted(removed)), _table(sorted(different)), self._unlisted, _table(review), over, facts
        )


def _table(pairs: list[tuple[int, int, float, str]]) -> pa.Table:
    columns = list(zip(*pairs, strict=True)) or [(), (), (), ()]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, PAIRS, strict=True)], schema=PAIRS)
