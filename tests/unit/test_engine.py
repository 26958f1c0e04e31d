from __future__ import annotations

import pyarrow as pa

from mlops_llm.data.engine import Local


def doubled(table: pa.Table) -> pa.Table:
    return pa.table({"id": [2 * each for each in table["id"].to_pylist()]})


def counted(table: pa.Table) -> pa.Table:
    return table.group_by("key").aggregate([([], "count_all")]).sort_by("key")


def test_map_streams_one_table_at_a_time():
    asked = []

    def tables():
        for number in range(3):
            asked.append(number)
            yield pa.table({"id": [number]})

    out = Local().map(doubled, tables())
    assert asked == []
    assert next(out)["id"].to_pylist() == [0]
    assert asked == [0]
    assert [table["id"].to_pylist() for table in out] == [[2], [4]]


def test_by_key_brings_all_rows_of_a_key_together():
    tables = [pa.table({"key": ["a", "b"]}), pa.table({"key": ["b", "c"]}), pa.table({"key": ["a"]})]
    (out,) = Local().by_key(counted, tables, "key")
    assert out.to_pydict() == {"key": ["a", "b", "c"], "count_all": [2, 2, 1]}


def test_by_key_of_no_tables_is_no_table():
    assert list(Local().by_key(counted, [], "key")) == []
