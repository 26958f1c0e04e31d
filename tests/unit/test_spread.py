"""Work in parts: whatever the parts and their order, the same comes out as of all rows at once."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data import parted, stats, tokens
from mlops_llm.data.dedup import exact, minhash, texts
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.engine import Local, Step, Where
from mlops_llm.data.kinds import Kind
from mlops_llm.data.ops.validate import Validate
from mlops_llm.data.rows import Record
from mlops_llm.data.validate import Checks, check
from mlops_llm.errors import UserError


class Shuffled:
    """Does what a cluster does: cuts tables, brings keys together by a hash, and lets parts come out in any order."""

    def __init__(self, seed: int, parts: int) -> None:
        self._draw, self._parts = random.Random(seed), parts

    def map(self, step: Step, tables: Iterable[pa.Table], *, kept: bool = False) -> Iterator[pa.Table]:
        made = [step(table) for table in tables]
        self._draw.shuffle(made)
        return iter(made)

    def by_key(self, step: Step, tables: Iterable[pa.Table], key: str) -> Iterator[pa.Table]:
        table = pa.concat_tables(list(tables))
        order = np.array(self._draw.sample(range(len(table)), len(table)), np.int64)
        table = table.take(pa.array(order))
        part = np.array([hash(value) % self._parts for value in table[key].to_pylist()], np.int64)
        made = [step(table.filter(pa.array(part == each))) for each in range(self._parts)]
        self._draw.shuffle(made)
        return iter(made)


WORDS = st.sampled_from(["几点开门", "几点关门 ", "九点", "五点", "open at 9", "Open  at 9", "", "长" * 40])
ROW = st.fixed_dictionaries({"prompt": WORDS, "response": WORDS, "label": st.integers(0, 60)})
ROWS = st.lists(ROW, max_size=30)
BROKEN = st.sampled_from([Record(1, None, "is no JSON", "mend it"), Record(1, {"prompt": 3}), Record(1, {"text": "x"})])


def records(rows: list[Any]) -> list[Record]:
    made = [each if isinstance(each, Record) else Record(0, each) for each in rows]
    return [each._replace(line=number, file=f"part-{number % 2}.jsonl") for number, each in enumerate(made, 1)]


@given(
    st.lists(st.one_of(ROWS.map(lambda rows: rows[0] if rows else {}), BROKEN), max_size=40), st.integers(0, 9), st.booleans()
)
def test_a_check_in_parts_finds_what_one_over_all_finds(rows: list[Any], seed: int, several: bool) -> None:
    found, count = records(rows), lambda kind: lambda rows: [len(str(row)) for row in rows]
    how = Checks(max_tokens=60, keep=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parted, "ROWS", 4)
        whole = check(found, None, how, count, several=several)
        parts = check(found, None, how, count, several=several, engine=Shuffled(seed, 3))
    assert parts == dataclasses.replace(whole, findings=parts.findings)
    assert (parts.findings.counts, parts.findings.all()) == (whole.findings.counts, whole.findings.all())
    assert list(parts.fields) == list(whole.fields)


@cache
def tokenizer() -> Any:
    return tokens.tokenizer("tiny")


@given(ROWS, st.integers(0, 9))
def test_measures_in_parts_are_those_of_all_rows(rows: list[Any], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parted, "ROWS", 4)
        parts = stats.measure(records(rows), Kind.sft, tokenizer(), engine=Shuffled(seed, 3))
    whole = stats.measure(records(rows), Kind.sft, tokenizer())
    assert parts == whole and list(parts.labels.items()) == list(whole.labels.items())


@given(ROWS, st.integers(0, 9), st.sampled_from(Keep), st.permutations(["prompt", "answer"]))
def test_duplicates_do_not_depend_on_where_rows_meet(rows: list[Any], seed: int, keep: Keep, fields: list[str]) -> None:
    def tables() -> Iterator[pa.Table]:
        return texts.tables(enumerate(rows, 1), 7)

    for find in (
        lambda engine: exact.find(tables(), fields, keep, True, engine),
        lambda engine: minhash.find(tables(), fields, keep, 0.7, 2, engine),
    ):
        if rows:
            whole, parts = find(Local()), find(Shuffled(seed, 3))
            assert (parts.rows, parts.unlisted) == (whole.rows, whole.unlisted)
            assert parts.removed.equals(whole.removed) and parts.different.equals(whole.different)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=120), st.integers(1, 4))
def test_candidates_of_parts_of_the_buckets_are_those_of_all(cells: list[tuple[int, int]], parts: int) -> None:
    cells = sorted(set(cells))
    places, buckets = [np.array([cell[place] for cell in cells], np.int64) for place in (0, 1)]
    table = pa.table({"place": places, "bucket": buckets.astype(np.uint64)})
    whole = minhash.candidates(table)
    cut = [minhash.candidates(table.filter(pa.array(buckets % parts == part))) for part in range(parts)]
    assert minhash._once(cut).equals(whole) or not len(cells)


def test_where_work_is_done_is_checked_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"op\.structure_only: is done while the file is read"):
        Validate(structure_only=True, engine=Where.ray)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="launch=ray"):
        Where.ray.check()
