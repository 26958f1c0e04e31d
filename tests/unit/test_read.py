from __future__ import annotations

import gzip
import hashlib
import json

import pytest

from mlops_llm.data.read import ENDINGS, Read, find, name, read, read_path, shipped
from mlops_llm.errors import UserError

ROWS = [{"prompt": "你好", "response": "a\nb"}, {"prompt": "c", "response": "d", "metadata": {"x": [1, None]}}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,response\n你好,"a\nb"\nc,d\n'


@pytest.fixture
def file(here):
    def write(content: str | bytes, name: str = "rows.jsonl", encoding: str = "utf-8") -> str:
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return name

    return write


def refused(ref: str, how: Read | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(ref, how)
    line = str(caught.value)
    assert caught.value.where
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("content", "name", "lines"),
    [
        (LINES, "rows.jsonl", [1, 2]),
        ("\n" + LINES.replace("\n", "\r\n\r\n"), "rows.jsonl", [2, 4]),
        (LINES.strip(), "rows.json", [1, 2]),
        (json.dumps(ROWS), "rows.json", [1, 1]),
        (json.dumps(ROWS, indent=1), "rows.json", [2, 6]),
        ("\n [\n" + ",\n".join(LINES.splitlines()) + "\n]\n", "rows.jsonl", [3, 4]),
    ],
    ids=["jsonl", "blank lines and CRLF", "lines in .json", "array", "indented array", "array in .jsonl"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_rows_and_the_lines_they_begin_on(file, content, name, lines, packed):
    content = content.encode()
    source = read(file(gzip.compress(content), f"{name}.gz") if packed else file(content, name))
    assert source.rows == ROWS
    assert source.lines == lines
    assert source.name == "rows"
    assert source.raw == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert source.where(1) == f"{source.path.name} line {lines[1]}"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_csv(file, packed):
    source = read(file(gzip.compress(CSV.encode()), "rows.csv.gz") if packed else file(CSV, "rows.csv"))
    assert source.rows == [{"prompt": "你好", "response": "a\nb"}, {"prompt": "c", "response": "d"}]
    assert source.name == "rows"


def test_lines_of_csv(file):
    assert read(file("prompt,response\na,b\n\nc,d\n", "rows.csv")).lines == [2, 4]


def test_a_csv_row_of_several_lines_begins_on_its_first(file):
    assert read(file(CSV, "rows.csv")).lines == [2, 4]


@pytest.mark.parametrize(("content", "name"), [(LINES, "rows.jsonl"), (json.dumps(ROWS), "rows.json"), (CSV, "rows.csv")])
def test_a_byte_order_mark_is_no_content(file, content, name):
    source = read(file(b"\xef\xbb\xbf" + content.encode(), name))
    assert list(source.rows[0]) == ["prompt", "response"]


def test_line_separators_within_texts_do_not_split_lines(file):
    odd = [{"prompt": "a\u2028b\x85c", "response": "d\u2029"}]
    assert read(file(json.dumps(odd[0], ensure_ascii=False))).rows == odd


def test_not_utf8_is_named_with_line_byte_and_remedy(file):
    content = LINES.encode() + json.dumps({"prompt": "价格"}, ensure_ascii=False).encode("gb18030")
    line = refused(file(content))
    assert line.startswith("rows.jsonl line 3: is not utf-8 (byte 0xbc); as gb18030 it says '价格'")
    line = refused(file("{}\n" + json.dumps({"prompt": "价格"}, ensure_ascii=False), "x.jsonl", "gb18030"))
    assert "line 2 is not utf-8 (byte 0xbc)" in line
    assert "x.jsonl" in line
    assert "read.encoding=gb18030" in line


def test_not_utf8_behind_a_byte_order_mark(file):
    assert "line 2 is not utf-8" in refused(file(b"\xef\xbb\xbf{}\n\xff"))


def test_another_encoding(file):
    assert read(file(LINES.encode("gb18030")), Read(encoding="gb18030")).rows == ROWS
    assert read(file(LINES.encode("utf-16")), Read(encoding="utf-16")).rows == ROWS
    with pytest.raises(UserError, match=r"^read\.encoding: unknown encoding 'gb99'"):
        Read(encoding="gb99")
    assert "line 2 is not gb18030" in refused(file(b"{}\n\xff"), Read(encoding="gb18030"))


@pytest.mark.parametrize("bad", ["{'a': 1}", '{"a": 1', '{"a": 1} {"b": 2}', "prompt", '{"a": 1},'])
def test_a_line_that_is_not_json(file, bad):
    line = refused(file(f'{{"a": 1}}\n\n{bad}\n{{"a": 1}}\n'))
    assert line.startswith("rows.jsonl line 3: is not JSON (")
    assert line.endswith("mend or remove the line")


@pytest.mark.parametrize(("value", "kind"), [("3", "int"), ('"text"', "str"), ("null", "NoneType"), ("[1]", "list")])
def test_a_line_that_is_no_object(file, value, kind):
    line = refused(file(f'{{"a": 1}}\n{value}\n'))
    assert line.startswith(f"rows.jsonl line 2: is a {kind}, not an object")


def test_an_element_that_is_no_object(file):
    line = refused(file('[\n{"a": 1},\n3\n]', "rows.json"))
    assert line.startswith("rows.json line 3: is a int, not an object")


@pytest.mark.parametrize("cut", ['[\n{"a": 1},\n{"a": 2}', '[\n{"a": 1},\n', "["])
def test_an_array_that_is_cut_off_between_elements(file, cut):
    line = refused(file(cut, "rows.json"))
    assert line.startswith(f"rows.json line {cut.count(chr(10)) + 1}: the array is not closed")
    assert "cut off" in line


@pytest.mark.parametrize("cut", ['[\n{"a": 1},\n{"a": ', '[\n{"a": 1},\n{"a": "te', '[\n{"a": 1},\n{"a" 2}]'])
def test_an_array_with_a_broken_element(file, cut):
    line = refused(file(cut, "rows.json"))
    assert "is not JSON" in line
    assert "line 3" in line


@pytest.mark.parametrize("rest", ['\n[{"a": 2}]', ' {"a": 2}', " x"])
def test_an_array_with_something_behind_it(file, rest):
    assert "rows.json" in refused(file('[{"a": 1}]' + rest, "rows.json"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("", "rows.jsonl"),
        (" \n\r\n\t", "rows.jsonl"),
        ("[ ]", "rows.json"),
        ("prompt,response\n", "rows.csv"),
        (b"\xef\xbb\xbf", "rows.csv"),
    ],
)
def test_an_empty_file(file, content, name):
    line = refused(file(content, name))
    assert name in line
    assert "give it rows" in line


@pytest.mark.parametrize(("row", "cells"), [("a", "1 cell"), ("a,b,c", "3 cells")])
def test_a_csv_row_with_another_number_of_cells(file, row, cells):
    line = refused(file(f"prompt,response\na,b\n{row}\n", "rows.csv"))
    assert line.startswith(f"rows.csv line 3: has {cells}, not 2 as the header; mend the line")


def test_gzip_that_is_none_or_cut_off(file):
    whole = gzip.compress(LINES.encode() * 50, mtime=0)
    for content in (b"plain", whole[:-9], b""):
        assert "rows.jsonl.gz" in refused(file(content, "rows.jsonl.gz"))


def test_gzip_with_broken_content(file):
    whole = bytearray(gzip.compress(bytes(range(256)) * 50, mtime=0))
    whole[10:40] = b"\xff" * 30
    assert "rows.jsonl.gz" in refused(file(bytes(whole), "rows.jsonl.gz"))


class TestColumns:
    def test_our_fields_are_filled_from_theirs(self, file):
        source = read(file('{"q": "a", "a": "b"}'), Read(columns={"prompt": "q", "response": "a"}))
        assert source.rows == [{"prompt": "a", "response": "b"}]

    def test_a_column_that_is_not_there_is_named_with_line_and_neighbour(self, file):
        line = refused(file('{"question": 1}\n{"qestion": 1}'), Read(columns={"prompt": "question"}))
        assert line == "rows.jsonl line 2: has no column 'question' (did you mean qestion?); it has: qestion"

    def test_two_fields_can_change_places(self, file):
        source = read(file('{"prompt": "a", "response": "b"}'), Read(columns={"prompt": "response", "response": "prompt"}))
        assert source.rows == [{"prompt": "b", "response": "a"}]

    def test_a_column_of_that_name_is_not_written_over(self, file):
        path = file('{"prompt": "keep me", "q": "asked", "response": "r"}')
        line = refused(path, Read(columns={"prompt": "q"}))
        assert line.startswith("rows.jsonl line 1: has a column 'prompt' of its own, which read.columns would write over; give")
        both = Read(columns={"prompt": "q", "other_prompt": "prompt"})
        assert read(path, both).rows == [{"prompt": "asked", "other_prompt": "keep me", "response": "r"}]

    @pytest.mark.parametrize("mine", ['""', "null", '"asked"'])
    def test_an_empty_one_or_one_that_says_the_same_is_no_loss(self, file, mine):
        source = read(file(f'{{"prompt": {mine}, "q": "asked"}}'), Read(columns={"prompt": "q"}))
        assert source.rows == [{"prompt": "asked"}]


class TestFind:
    def test_a_path_comes_before_a_name(self, here, file):
        file(LINES, "sales_sft")
        assert find("sales_sft") == here / "sales_sft"

    def test_own_datasets_come_before_those_that_ship(self, here):
        (here / "datasets").mkdir()
        own = here / "datasets" / "sales_sft.jsonl"
        own.write_text(LINES)
        assert find("sales_sft") == own
        assert find("sales_dpo") == shipped() / "sales_dpo.jsonl"

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_name_needs_no_ending(self, here, ending):
        (here / "datasets").mkdir()
        path = here / "datasets" / f"客服.v2{ending}"
        path.write_text("x")
        assert find("客服.v2") == find(f"客服.v2{ending}") == path
        assert name(path) == "客服.v2"

    def test_a_near_name_is_offered(self, here):
        with pytest.raises(UserError) as caught:
            find("sales_stf")
        line = str(caught.value)
        assert line.startswith("sales_stf: there is no such dataset (did you mean sales_sft?)")
        assert "math_sft" in line

    def test_a_folder_comes_behind_a_name(self, here):
        for folder in ("sales_sft", "own", "datasets", "datasets/kept"):
            (here / folder).mkdir()
        assert find("sales_sft") == shipped() / "sales_sft.jsonl"
        assert find("own") == here / "own"
        assert find("kept") == here / "datasets" / "kept"

    @pytest.mark.parametrize("target", ["/dev/null", "loop"])
    def test_what_is_there_is_found_even_if_it_cannot_be_read(self, here, target):
        (here / "loop").symlink_to(target)
        assert find("loop") == here / "loop"
        assert refused("loop").startswith(f"{here}/loop: ")


def test_a_folder_of_shards_is_one_dataset(here):
    (here / "v1.2").mkdir()
    for number in (2, 1):
        (here / "v1.2" / f"{number}.jsonl").write_text(f'{{"n": {number}}}\n' * number)
    source = read("v1.2")
    assert source.name == "v1.2"
    assert source.rows == [{"n": 1}, {"n": 2}, {"n": 2}]
    assert [source.where(place) for place in range(3)] == ["1.jsonl line 1", "2.jsonl line 1", "2.jsonl line 2"]
    before = source.raw
    (here / "v1.2" / "2.jsonl").write_text('{"n": 2}\n{"n":2}\n')
    assert read("v1.2").raw != before
    assert read("v1.2").canonical == source.canonical


def test_a_path_is_read_without_being_looked_for(here):
    (here / "datasets").mkdir()
    (here / "datasets" / "x.jsonl").write_text(LINES)
    assert read_path(here / "datasets" / "x.jsonl").rows == ROWS
    with pytest.raises(UserError, match="there is no such file"):
        read_path(here / "x")
