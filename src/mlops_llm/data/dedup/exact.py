"""Rows that are the same text for text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlops_llm.data.dedup.found import PAIRS, Found
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.texts import FIELDS, normal
from mlops_llm.data.engine import Engine

Ints = npt.NDArray[np.int64]


def find(tables: Iterable[pa.Table], fields: Sequence[str], keep: Keep, normalize: bool, engine: Engine) -> Found:
    """Find rows that are equal in all of `fields` and in their solution.

    Rows that ask the same and answer otherwise are no duplicates: they come out as `different`. Memory is that of the texts,
    about twice.

    Args:
        tables: as of `texts.tables`.
        fields: what is compared.
        keep: which of equal rows stays.
        normalize: compare after `texts.normal`, with small letters.
        engine: where the steps run.
    """
    columns = sorted({*fields, "solution"})
    if normalize:
        tables = engine.map(partial(normal, columns=columns, case=True, ends=False), tables)
    counted: list[int] = []
    step = partial(duplicates, fields=fields, keep=keep)
    key = "prompt" if "prompt" in fields else fields[0]  # rows that only ask the same are to meet as well
    pairs = list(engine.by_key(step, _counting(tables, counted), key))
    found = pa.concat_tables(pairs).sort_by("id") if pairs else PAIRS.empty_table()
    same = pc.equal(found["differ"], "")
    return Found(sum(counted), found.filter(same), found.filter(pc.invert(same)))


def duplicates(table: pa.Table, fields: Sequence[str], keep: Keep) -> pa.Table:
    """The step: rows equal to another in `fields` and solution, and rows that only ask the same, as `PAIRS`.

    Texts themselves are compared (in Arrow's hash table), not their digests. What nobody else asks is not looked at further.
    """
    names = sorted({*fields, "solution"}, key=lambda name: (name != "prompt", name not in fields, name))
    parts = {names[0]: groups(table[names[0]])}
    shared = np.bincount(parts[names[0]])[parts[names[0]]] > 1
    if shared.size and shared.mean() < 0.5:  # else to copy them costs more than it saves
        needed = {"id", *names[1:], *(FIELDS if keep is Keep.longest else ())}
        table = table.select(sorted(needed)).filter(pa.array(shared))
        parts[names[0]] = parts[names[0]][shared]
    parts |= {name: groups(table[name]) for name in names[1:]}
    ids = _numbers(table["id"])
    rank = ranks(ids, lengths(table) if keep is Keep.longest else None)
    at = np.empty_like(rank)
    at[rank] = np.arange(len(rank))
    stays = _first(_together(list(parts.values())), rank, at)
    gone = np.flatnonzero(stays != np.arange(len(ids)))
    removed = _pairs(ids[gone], ids[stays[gone]], pa.repeat("", len(gone)))
    if "prompt" not in parts or (len(fields) == 1 and table["solution"].null_count == len(table)):
        return removed
    asked = _first(parts["prompt"], rank, at)
    apart = np.flatnonzero((stays == np.arange(len(ids))) & (asked != stays))
    others = [name for name in names if name != "prompt"]
    other = asked[apart]
    which = sum((parts[name][apart] != parts[name][other]) << place for place, name in enumerate(others))
    said = [", ".join(name for place, name in enumerate(others) if code >> place & 1) for code in range(2 ** len(others))]
    return pa.concat_tables([removed, _pairs(ids[apart], ids[other], pa.array(said).take(pa.array(which)))])


def groups(column: Any) -> Ints:
    """A number for each text of a column, equal where the texts are; nulls are equal to each other."""
    if column.null_count == len(column):
        return np.zeros(len(column), np.int64)
    coded = pc.dictionary_encode(column, null_encoding="encode")
    indices = pa.chunked_array([each.indices for each in coded.chunks]) if isinstance(coded, pa.ChunkedArray) else coded.indices
    return _numbers(indices)


def ranks(ids: Ints, lengths: Ints | None) -> Ints:
    """Each row's place in the order of preference: by id, or longest first."""
    if lengths is None and (np.diff(ids) > 0).all():
        return np.arange(len(ids))
    order = np.argsort(ids) if lengths is None else np.lexsort((ids, -lengths))
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return rank


def _together(parts: list[Ints]) -> Ints:
    """One group number of several."""
    joined = parts[0]
    for part in parts[1:]:
        most = int(part.max(initial=0))
        if most:
            joined = groups(pa.array(joined * (most + 1) + part))
    return joined


def _first(group: Ints, rank: Ints, at: Ints) -> Ints:
    """For each row the preferred row of its group."""
    best = np.full(int(group.max(initial=0)) + 1, len(rank), np.int64)
    np.minimum.at(best, group, rank)
    return at[best[group]]


def lengths(table: pa.Table) -> Ints:
    """Characters of each row's texts, those that are not compared too."""
    counted = (_numbers(pc.fill_null(pc.utf8_length(table[name]), 0)) for name in FIELDS)
    return sum(counted, np.zeros(len(table), np.int64))


def _numbers(column: Any) -> Ints:
    return np.asarray(column.to_numpy(), np.int64)


def _pairs(ids: Ints, equals: Ints, differ: Any) -> pa.Table:
    return pa.table([pa.array(ids), pa.array(equals), pa.array(np.ones(len(ids))), differ], schema=PAIRS)


def _counting(tables: Iterable[pa.Table], counted: list[int]) -> Iterable[pa.Table]:
    for table in tables:
        counted.append(len(table))
        yield table
