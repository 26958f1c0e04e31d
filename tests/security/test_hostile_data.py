"""Datasets and workbooks that are small on the disk and endless when they are read, and data sets that bring code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_llm.data import columnar, hub, packed
from mlops_llm.data.formats import records
from mlops_llm.errors import UserError
from mlops_llm.eval.people import returned


def refused(file: Path) -> str:
    """What is said first, of rows that nobody has to read to the end."""
    for record in records(file):
        if record.row is None:
            return f"{record.problem}; {record.remedy}"
    return ""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a real machine would do for hours is told by a few rows."""
    monkeypatch.setattr(columnar, "MANY", 1 << 12)
    monkeypatch.setattr(packed, "RATIO", 80)


def test_a_parquet_file_of_endless_rows(tmp_path: Path) -> None:
    one = pa.table({"prompt": pa.DictionaryArray.from_arrays(pa.array([0] * 2_000_000, pa.int32()), ["a"])})
    pq.write_table(one, tmp_path / "rows.parquet", compression="zstd")
    assert "unpacks to over 80 times its size (a bomb?)" in refused(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"prompt": pa.nulls(2_000_000)}), tmp_path / "rows.parquet")
    assert "a bomb?" in refused(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"prompt": [["a"] * 2_000_000]}), tmp_path / "rows.parquet", compression="zstd")
    assert "a bomb?" in refused(tmp_path / "rows.parquet"), "one row may be endless too"


def test_a_parquet_file_of_endless_texts(tmp_path: Path) -> None:
    texts = pa.table({"prompt": ["a" * (33 << 20)]})
    pq.write_table(texts, tmp_path / "rows.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
    assert (tmp_path / "rows.parquet").stat().st_size < 40_000
    assert "a bomb?" in refused(tmp_path / "rows.parquet")


def test_an_arrow_file_of_endless_rows(tmp_path: Path) -> None:
    table = pa.table({"prompt": pa.nulls(50_000_000)})
    with pa.ipc.new_file(tmp_path / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    assert "a bomb?" in refused(tmp_path / "rows.arrow")


def test_what_is_merely_alike_is_read(tmp_path: Path) -> None:
    table = pa.table({"prompt": [f"问题 {number % 7}" for number in range(20_000)], "response": ["b"] * 20_000})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert refused(tmp_path / "rows.parquet") == ""


def test_a_workbook_that_explodes(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("[Content_Types].xml", b"")
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            for _ in range(300):
                sheet.write(bytes(1 << 20))
    (tmp_path / "rater.xlsx").write_bytes(out.getvalue())
    assert len(out.getvalue()) < 1 << 20
    with pytest.raises(UserError, match="unpacks to more than 256 MiB"):
        returned.read(tmp_path / "rater.xlsx")


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY file SYSTEM "file:///etc/passwd">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12))
    + ']><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row><c t="inlineStr"><is>'
    "<t>&m;&file;</t></is></c></row></sheetData></worksheet>"
)


@pytest.mark.parametrize("first", ["of zeros", "of what is said"])
def test_a_workbook_that_explodes_and_says_that_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Neither the size nor the sum that a member says is believed: the sum may be that of its beginning."""
    import tracemalloc
    import zlib

    monkeypatch.setattr(returned, "_UNPACKED", 4 << 20)
    size, said = 64 << 20, 100
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("[Content_Types].xml", bytes(size))
    content = out.getvalue().replace(size.to_bytes(4, "little"), said.to_bytes(4, "little"))
    if first == "of what is said":
        content = content.replace(zlib.crc32(bytes(size)).to_bytes(4, "little"), zlib.crc32(bytes(said)).to_bytes(4, "little"))
    (tmp_path / "rater.xlsx").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="unpacks to more than 4 MiB"):
            returned.read(tmp_path / "rater.xlsx")
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()


def test_a_workbook_that_says_another_size_than_it_has_is_none(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("[Content_Types].xml", bytes(70_000))
    content = out.getvalue().replace((70_000).to_bytes(4, "little"), (70_001).to_bytes(4, "little"))
    (tmp_path / "rater.xlsx").write_bytes(content)
    with pytest.raises(UserError, match="it is no workbook"):
        returned.read(tmp_path / "rater.xlsx")


def test_a_workbook_of_entities(tmp_path: Path) -> None:
    """A billion laughs, and a file of yours as an entity: the parser of XML refuses the one and does not look for the other."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["id", "prompt"])
    whole = io.BytesIO()
    book.save(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "rater.xlsx", "w") as target:
        for each in source.namelist():
            target.writestr(each, LAUGHS if each.endswith("sheet1.xml") else source.read(each))
    with pytest.raises(UserError) as caught:
        returned.read(tmp_path / "rater.xlsx")
    assert "root:" not in str(caught.value)


def test_a_data_set_brings_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loading script, as data sets of the hub had them: `datasets` runs none any more, and we ask for none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "set").mkdir(parents=True)
    marker = tmp_path / "marker"
    (tmp_path / "own/set/set.py").write_text(f"open({str(marker)!r}, 'w')\nimport datasets\n")
    with pytest.raises(UserError) as caught:
        list(hub.rows("hf:own/set"))
    assert not marker.exists() and "\n" not in str(caught.value)
