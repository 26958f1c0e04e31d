from __future__ import annotations

import datetime
import decimal
import gzip
import itertools
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.data import encoding, formats, packed
from mlops_llm.data.formats import ENDINGS, records
from mlops_llm.data.rows import Read, Record
from mlops_llm.errors import UserError

ROWS = [{"prompt": "你好", "response": "a\nb"}, {"prompt": "c", "response": "d"}, {"prompt": "é😀", "response": '"q", r'}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,response\n你好,"a\nb"\nc,d\né😀,"""q"", r"\n'


def zstd(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


def parquet(rows: list[dict] | pa.Table, **options) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), out, **options)
    return out.getvalue().to_pybytes()


def arrow(rows: list[dict] | pa.Table, stream: bool = False) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    out = pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


CONTENTS = {
    ".jsonl": LINES.encode(),
    ".ndjson": LINES.encode(),
    ".json": json.dumps(ROWS).encode(),
    ".csv": CSV.encode(),
    ".tsv": "prompt\tresponse\n你好\t\"a\nb\"\nc\td\né😀\t\"\"\"q\"\", r\"\n".encode(),
    ".parquet": parquet(ROWS),
    ".arrow": arrow(ROWS),
    ".feather": arrow(ROWS),
    ".ipc": arrow(ROWS, stream=True),
}  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


@pytest.fixture
def read(tmp_path):
    def read(content: str | bytes, name: str = "rows.jsonl", how: Read | None = None) -> list[Record]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(records(path, how))

    return read


def rows(found: list[Record]) -> list[object]:
    return [record.row for record in found]


def places(found: list[Record]) -> list[tuple[int, str]]:
    return [(record.line, record.problem) for record in found if record.row is None]


def refused(action) -> str:
    with pytest.raises(UserError) as caught:
        action()
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("ending", CONTENTS)
def test_every_format_gives_the_same_rows(read, ending, packing):
    found = read(PACK[packing](CONTENTS[ending]), f"客服.v1{ending}{packing}")
    assert rows(found) == ROWS
    assert {record.file for record in found} == {f"客服.v1{ending}{packing}"}


def test_every_ending_is_known():
    assert {*CONTENTS, ".txt"} == set(formats.FORMATS)
    assert len(ENDINGS) == 3 * len(formats.FORMATS)


def test_endings_may_be_capitals(read):
    assert rows(read(CONTENTS[".csv"], "ROWS.CSV")) == ROWS
    assert rows(read(gzip.compress(CONTENTS[".parquet"]), "rows.Parquet.GZ")) == ROWS


class TestJSON:
    @pytest.mark.parametrize("key", ["rows", "data", "examples", "instances", "train"])
    @pytest.mark.parametrize("indent", [None, 1])
    def test_an_object_with_a_list_of_rows(self, read, key, indent):
        content = json.dumps({"version": {"data": 1}, "x": [{"y": 1}], key: ROWS, "more": [1]}, indent=indent)
        assert rows(read(content, "rows.json")) == ROWS

    def test_in_json_lines_such_a_key_is_a_field_like_any_other(self, read):
        row = {"data": [{"a": 1}]}
        assert rows(read(json.dumps(row) + "\n", "rows.jsonl")) == [row]

    def test_lines_in_a_file_called_json(self, read):
        assert rows(read(LINES, "rows.json")) == ROWS
        assert rows(read('{"data": "x"}\n{"data": [1]}\n', "rows.json")) == [{"data": "x"}, {"data": [1]}]

    def test_lists_of_rows_under_two_keys_are_not_lost_silently(self, read):
        found = read(json.dumps({"data": ROWS[:1], "train": ROWS[1:]}, indent=1), "rows.json")
        assert places(found) == [(8, "holds rows under 'train' as well as under 'data'")]

    def test_one_object_without_rows_names_its_fields(self, read):
        line = refused(lambda: read('{\n "model_type": "llama",\n "layers": 2\n}', "config.json"))
        assert "one object without a list of rows (it has: model_type, layers)" in line

    def test_an_array_goes_on_behind_an_element_that_is_no_row(self, read):
        found = read('[{"a": 1},\n 3,\n {"a": NaN}, {"a": 1, "a": 2},\n"x", {"a": 2}]', "rows.json")
        assert [record.row for record in found if record.row] == [{"a": 1}, {"a": 2}]
        assert [line for line, _ in places(found)] == [2, 3, 3, 4]

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ('[{"a": 1}\n{"a": 2}]', (2, "a comma is missing before the row")),
            ('[{"a": 1},\n,{"a": 2}]', (2, "a comma has no row before it")),
            ('[{"a": 1}, {"a": 2}\n,]', (2, "a comma has no row behind it")),
            ('[{"a": 1},{"a": 2}]\n{"a": 3}', (2, "something stands behind the array")),
        ],
    )
    def test_commas_and_what_stands_behind(self, read, content, problem):
        found = read(content, "rows.json")
        assert places(found) == [problem]
        assert [record.row for record in found if record.row] == [{"a": 1}, {"a": 2}]

    def test_an_array_on_one_line_is_read_in_blocks(self, read, monkeypatch):
        monkeypatch.setattr(packed, "BLOCK", 7)
        odd = [*ROWS, {"n": [1.5, -2e3, True, None], "text": '😀\\"' * 9}]
        for separators in ((",", ":"), (" , ", " : ")):
            assert rows(read(json.dumps(odd, ensure_ascii=False, separators=separators), "rows.json")) == odd
        assert rows(read(json.dumps({"n": 12345678901, "rows": odd, "m": 1}, indent=2), "rows.json")) == odd

    def test_an_element_cut_in_the_middle_ends_the_file(self, read):
        found = read('[\n{"a": 1},\n{"a": "te', "rows.json")
        assert rows(found) == [{"a": 1}, None]
        assert found[1].where == "rows.json line 3"
        assert found[1].remedy == "the file was cut off: copy it again"

    @pytest.mark.parametrize("depth", [3, 99])
    def test_honest_nesting_is_kept(self, read, depth):
        row = {"a": json.loads("[" * depth + "]" * depth)}
        assert rows(read(json.dumps(row))) == [row]
        assert rows(read(json.dumps([row]), "rows.json")) == [row]

    def test_many_brackets_are_no_depth(self, read):
        row = {"a": [[1]] * 500, "b": "[{" * 500}
        assert rows(read(json.dumps(row))) == [row]

    def test_numbers_keep_their_kind(self, read):
        assert read('{"a": 1, "b": 1.0, "c": 1e3, "d": 123456789012345678901234567890}')[0].row == {
            "a": 1,
            "b": 1.0,
            "c": 1000.0,
            "d": 123456789012345678901234567890,
        }

    @given(st.lists(st.dictionaries(st.text(max_size=9), VALUES, max_size=3), max_size=4))
    def test_what_python_writes_is_read_back(self, tmp_path_factory, values):
        path = tmp_path_factory.getbasetemp() / "any.json"
        path.write_text(json.dumps(values))
        assert rows(list(records(path))) == values
        path.write_text("".join(json.dumps(each) + "\n" for each in values) or "[]")
        assert rows(list(records(path))) == values


class TestText:
    def test_one_prompt_a_line(self, read):
        assert rows(read("first\r\n第二", "p.txt")) == [{"prompt": "first"}, {"prompt": "第二"}]
        found = read("  first\n\n第二\r\n\nthird", "p.txt")
        assert rows(found) == [{"prompt": "first"}, {"prompt": "第二"}, {"prompt": "third"}]
        assert [record.line for record in found] == [1, 3, 5]

    def test_blocks_where_blank_lines_stand_between_several_lines(self, read):
        found = read("\na\n  b\n\n\nc\r\n\t\r\nd\n", "p.txt")
        assert rows(found) == [{"prompt": "a\n  b"}, {"prompt": "c"}, {"prompt": "d"}]
        assert [record.line for record in found] == [2, 6, 8]


class TestCSV:
    def test_cells_are_texts(self, read):
        assert rows(read("a,b,c\n1,,=1+1\n", "x.csv")) == [{"a": "1", "b": "", "c": "=1+1"}]

    def test_a_bad_row_is_named_and_the_next_is_read(self, read):
        found = read('a,b\n1,2\n1\n1,2,3\n"x" y,2\n3,4\n', "x.csv")
        assert [line for line, _ in places(found)] == [3, 4, 5]
        assert [record.row for record in found if record.row] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]

    def test_a_cell_may_be_a_long_document(self, read):
        text = "字" * 200_000
        assert rows(read(f"a,b\n{text},x\n", "x.csv")) == [{"a": text, "b": "x"}]

    def test_columns_of_json_are_fields_again(self, read):
        found = read('a,tags:json\n1,"[1, {""x"": null}]"\n2,\n3,[\n', "x.csv")
        assert rows(found) == [{"a": "1", "tags": [1, {"x": None}]}, {"a": "2"}, None]
        assert found[2].problem == "the cell of 'tags:json' is not JSON"


class TestColumnar:
    def test_rows_are_numbered(self, read):
        found = read(parquet(ROWS * 900), "x.parquet")
        assert [record.line for record in found] == list(range(1, 2701))
        assert found[2].where == "x.parquet row 3"

    def test_nested_values_and_other_types(self, read):
        day = datetime.date(2026, 1, 2)
        table = pa.table(
            {
                "messages": [[{"role": "user", "content": "x"}]],
                "day": [day],
                "price": [decimal.Decimal("1.50")],
                "kind": pa.array(["a"]).dictionary_encode(),
                "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            }
        )
        expected = {
            "messages": [{"role": "user", "content": "x"}],
            "day": "2026-01-02",
            "price": "1.50",
            "kind": "a",
            "map": {"k": 1},
        }
        assert rows(read(parquet(table), "x.parquet")) == [expected]
        assert rows(read(arrow(table), "x.arrow")) == [expected]

    def test_columns_of_json_are_fields_again(self, read):
        table = pa.table({"a": [1, 2], "m:json": ['{"x": [1]}', None]})
        assert rows(read(parquet(table), "x.parquet")) == [{"a": 1, "m": {"x": [1]}}, {"a": 2}]


class TestEncodings:
    @pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("ending", [".jsonl", ".csv", ".json"])
    def test_a_byte_order_mark_decides(self, read, codec, ending):
        assert rows(read(CONTENTS[ending].decode().encode(codec), f"x{ending}")) == ROWS

    def test_big_endian_too(self, read):
        assert rows(read(b"\xfe\xff" + LINES.encode("utf-16-be"))) == ROWS

    @pytest.mark.parametrize("codec", ["gb18030", "utf-16", "utf-16-be", "UTF_8", "utf-8-sig"])
    def test_a_named_encoding(self, read, codec):
        assert rows(read(LINES.encode(codec), how=Read(encoding=codec))) == ROWS

    def test_a_block_may_end_within_a_character(self, read, monkeypatch):
        monkeypatch.setattr(packed, "BLOCK", 3)
        for codec in ("utf-8", "gb18030", "utf-16"):
            assert rows(read(LINES.encode(codec), how=Read(encoding=codec))) == ROWS

    def test_another_chinese_encoding_is_shown_both_ways_and_to_be_confirmed(self, read):
        line = refused(lambda: read('{"prompt": "价格是多少"}\n'.encode("gb18030")))
        assert "line 1 is not utf-8 (byte 0xbc); as gb18030 it says '价格是多少', as big5 it says '歎跡岆嗣屾'" in line
        assert line.endswith("if one reads right, say so: read.encoding=gb18030 (or big5); or save it as UTF-8")
        line = refused(lambda: read('{"prompt": "價格是多少？"}\n'.encode("big5")))
        assert "as big5 it says '價格是多少？'" in line
        assert "read.encoding=" in line

    def test_a_longer_text_is_shown_to_charset_normalizer(self, read):
        pytest.importorskip("charset_normalizer")
        line = refused(lambda: read("".join(f'{{"prompt": "{"Съешь же ещё этих мягких булок. " * 9}"}}\n').encode("cp1251")))
        assert "as cp1251 it says 'Съешь же" in line

    def test_one_bad_line_in_a_utf8_file_is_that_lines_problem(self, read):
        good = '{"prompt": "价格是多少"}\n'.encode()
        found = read(good * 3 + '{"prompt": "价格"}\n'.encode("gb18030") + good)
        assert len(found) == 5
        ((line, problem),) = places(found)
        assert (line, problem) == (4, "is not utf-8 (byte 0xbc); as gb18030 it says '价格'; as big5 it says '歎跡'")

    def test_a_byte_that_fits_nothing_ends_a_file_in_a_named_encoding(self, read):
        line = refused(lambda: read(b'{"a": 1}\n{"a": "\xff"}', how=Read(encoding="gb18030")))
        assert "line 2 is not gb18030" in line

    @pytest.mark.parametrize("name", ["gb99", "hex", "x" * 500])
    def test_an_encoding_that_is_none(self, read, name):
        line = refused(lambda: read(LINES, how=Read(encoding=name)))
        assert line.startswith(f"read.encoding: unknown encoding '{name[:40]}'")


class TestColumns:
    def test_a_missing_column_of_a_table_is_said_once(self, read):
        how = Read(columns={"prompt": "问题"})
        for content, name in ((CSV, "x.csv"), (parquet(ROWS), "x.parquet"), (arrow(ROWS), "x.arrow")):
            line = refused(lambda content=content, name=name: read(content, name, how))
            assert "has no column '问题'; it has: prompt, response" in line

    def test_a_row_without_it_is_a_record(self, read):
        found = read('{"q": 1}\n{"qq": 2}\n', how=Read(columns={"prompt": "q"}))
        assert rows(found) == [{"prompt": 1}, None]
        assert found[1].problem.startswith("has no column 'q'")


class TestFolder:
    def test_shards_are_one_dataset_in_the_order_of_their_names(self, tmp_path):
        for number in (3, 1, 2):
            (tmp_path / f"part-{number}.jsonl").write_text(f'{{"n": {number}}}\n\n{{"n": {number}}}\n')
        (tmp_path / "part-4.ndjson.gz").write_bytes(gzip.compress(b'{"n": 4}\n{"n"'))
        for name in ("README.md", "_SUCCESS", ".part-0.jsonl"):
            (tmp_path / name).write_text("not rows")
        found = list(records(tmp_path))
        assert [record.row and record.row["n"] for record in found] == [1, 1, 2, 2, 3, 3, 4, None]
        assert [record.where for record in found][-3:] == [
            "part-3.jsonl line 3",
            "part-4.ndjson.gz line 1",
            "part-4.ndjson.gz line 2",
        ]

    def test_a_broken_shard_does_not_end_the_dataset(self, tmp_path):
        (tmp_path / "1.json").write_text('[{"a": 1}, {"a"')
        (tmp_path / "2.json").write_text('[{"a": 2}]')
        assert rows(list(records(tmp_path))) == [{"a": 1}, None, {"a": 2}]

    def test_splits_are_kept_apart(self, tmp_path):
        for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
            (tmp_path / f"{name}.jsonl").write_text(LINES)
        line = refused(lambda: list(records(tmp_path)))
        assert "several splits (test, train)" in line

    def test_names_that_only_begin_like_a_split_are_none(self, tmp_path):
        for name in ("trainees", "devices"):
            (tmp_path / f"{name}.jsonl").write_text(LINES)
        assert len(list(records(tmp_path))) == 6


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz", ".csv", ".txt"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(packed, "BLOCK", 1 << 14)
    monkeypatch.setattr(packed, "RATIO", 10_000)
    line = '{"a": "' + "x" * 1000 + '"}'
    text = {".json": "[" + ",".join([line] * 6000) + "]", ".csv": "a,b\n" + "x,y\n" * 1_000_000}.get(ending, f"{line}\n" * 6000)
    path = tmp_path / f"rows{ending}"
    path.write_bytes(gzip.compress(text.encode(), 1) if ending.endswith(".gz") else text.encode())
    found = records(path)
    next(found)
    tracemalloc.start()
    try:
        count = sum(record.row is not None for record in itertools.islice(found, 20_000))
        assert count >= 5999
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_line_longer_than_the_limit_ends_the_file(read, monkeypatch):
    monkeypatch.setattr(encoding, "LINE", 1000)
    monkeypatch.setattr(encoding, "HEAD", 100)
    monkeypatch.setattr(packed, "BLOCK", 400)
    found = read('{"a": 1}\n{"a": "' + "x" * 3000 + '"}\n{"a": 2}\n')
    assert rows(found) == [{"a": 1}, None]
    assert found[1].line == 2
    assert found[1].problem.startswith("is longer than")


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    found = records(tmp_path / "none.jsonl")
    with pytest.raises(UserError):
        next(found)
