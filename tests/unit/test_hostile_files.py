"""Files that go wrong: each gives its good rows, and one line that says what is wrong and what to do."""

# ruff: noqa: E501 (the table reads best with a case a line)

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import pickle
import socket
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_llm.data.formats import records
from mlops_llm.data.read import read_path
from mlops_llm.errors import UserError

GOOD = '{"prompt": "a", "response": "b"}\n'
CHINESE = '{"prompt": "价格是多少", "response": "十元"}\n'
TRADITIONAL = '{"prompt": "價格是多少？請問", "response": "十元"}\n'


class Hostile(NamedTuple):
    """A file, how many of its rows are good, and the first thing said of it (nothing where all is well to read)."""

    file: str
    content: bytes | str | Callable[[Path], object]
    good: int
    finding: str


def zipped(content: str = GOOD) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.jsonl", content)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return out.getvalue().to_pybytes()


def parquet(table: pa.Table | None = None) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": ["a"] * 100, "response": ["b"] * 100}) if table is None else table, out)
    return out.getvalue().to_pybytes()


def arrow(stream: bool = False, table: pa.Table | None = None) -> bytes:
    table = pa.table({"prompt": ["a"] * 100}) if table is None else table
    out = pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=50):
            writer.write_batch(batch)
    return out.getvalue().to_pybytes()


def damaged(content: bytes, place: int, length: int = 20) -> bytes:
    return content[:place] + b"\xff" * length + content[place + length :]


def invalid_utf8() -> pa.Table:
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe"))
    return pa.table({"prompt": texts})


class Exploding:
    """What a malicious pickle holds: it writes a file when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {tempfile.gettempdir()}/mlops_llm_was_here",)


def linked(path: Path) -> None:
    other = path.with_name("other.jsonl")
    path.symlink_to(other)
    other.symlink_to(path)


def listening(path: Path) -> None:
    # The path of a socket may have 107 bytes only: it is made elsewhere.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as each:
        each.bind(f"{folder}/s")
        Path(f"{folder}/s").rename(path)


def folder(*files: tuple[str, str]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        for name, content in files:
            if name.endswith("/"):
                (path / name).mkdir()
            else:
                (path / name).write_text(content)

    return make


FILES = {
    # Nothing there, or no file
    "missing": Hostile("x.jsonl", lambda path: None, 0, "x.jsonl: there is no such file; check the path"),
    "empty": Hostile("x.jsonl", b"", 0, "x.jsonl: the file is empty; give it rows"),
    "empty csv": Hostile("x.csv", b"", 0, "x.csv: the file is empty; give it rows"),
    "empty parquet": Hostile("x.parquet", b"", 0, "x.parquet: the file is empty; give it rows"),
    "blank": Hostile("x.jsonl", " \n\r\n\t\n", 0, "x.jsonl: the file is empty; give it rows"),
    "blank text": Hostile("x.txt", "\n\n \n", 0, "x.txt: the file is empty; give it rows"),
    "only a byte order mark": Hostile("x.csv", b"\xef\xbb\xbf", 0, "x.csv: the file is empty; give it rows"),
    "empty gzip": Hostile("x.jsonl.gz", gzip.compress(b""), 0, "x.jsonl.gz: the file is empty; give it rows"),
    "empty zstd": Hostile("x.jsonl.zst", zstd(b""), 0, "x.jsonl.zst: the file is empty; give it rows"),
    "empty array": Hostile("x.json", "[ ]", 0, ""),
    "symlink loop": Hostile("x.jsonl", linked, 0, "x.jsonl: cannot be read (Too many levels of symbolic links); name the file itself"),
    "dangling symlink": Hostile("x.jsonl", lambda path: path.symlink_to("y.jsonl"), 0, "x.jsonl: is a link to a file that is not there"),
    "endless device": Hostile("x.jsonl", lambda path: path.symlink_to("/dev/zero"), 0, "x.jsonl: is a device, not a file; name a file"),
    "null device": Hostile("x.csv.gz", lambda path: path.symlink_to("/dev/null"), 0, "x.csv.gz: is a device, not a file"),
    "fifo": Hostile("x.jsonl", os.mkfifo, 0, "x.jsonl: is a pipe, not a file; name a file"),
    "fifo as parquet": Hostile("x.parquet", os.mkfifo, 0, "x.parquet: is a pipe, not a file; name a file"),
    "socket": Hostile("x.jsonl", listening, 0, "x.jsonl: is a socket, not a file; name a file"),
    "file as folder": Hostile("x.jsonl/y", lambda path: path.parent.write_text(GOOD), 0, "y: cannot be read (Not a directory)"),
    "empty folder": Hostile("x", folder(), 0, "x: the folder holds no dataset files; they end in .jsonl"),
    "folder of folders": Hostile("x", folder(("data/", "")), 0, "x: the folder holds no dataset files, but folders: data; name the"),
    "mixed folder": Hostile(
        "x", folder(("a.jsonl", GOOD), ("b.csv", "a,b\n1,2\n"), ("c.jsonl", GOOD)), 0,
        "x: the folder holds files of several formats (2 .jsonl, 1 .csv); name one file, or keep one format",
    ),
    "folder of splits": Hostile("x", folder(("train.jsonl", GOOD), ("test.jsonl", GOOD)), 0, "x: the folder holds several splits (test, train)"),
    "folder with an empty file": Hostile("x", folder(("a.jsonl", GOOD), ("b.jsonl", "")), 1, "b.jsonl: the file is empty"),
    "folder called like a file": Hostile("x.jsonl", folder(("a.jsonl", GOOD)), 1, ""),
    # Not what the name says
    "zip named gz": Hostile("x.jsonl.gz", zipped(), 0, "x.jsonl.gz: is a zip archive (or an Excel file), not gzip as its name says; unpack it"),
    "zip named jsonl": Hostile("x.jsonl", zipped(), 0, "x.jsonl: is a zip archive (or an Excel file); unpack it (from Excel, save as CSV UTF-8)"),
    "excel named csv": Hostile("x.csv", zipped(), 0, "x.csv: is a zip archive (or an Excel file); unpack it (from Excel, save as CSV UTF-8)"),
    "plain named gz": Hostile("x.jsonl.gz", GOOD, 0, "x.jsonl.gz: is not packed with gzip as its name says; take .gz off its name"),
    "plain named zst": Hostile("x.csv.zst", "a,b\n1,2\n", 0, "x.csv.zst: is not packed with zstd as its name says; take .zst off its name"),
    "gzip named zst": Hostile("x.jsonl.zst", gzip.compress(GOOD.encode()), 0, "x.jsonl.zst: is gzip, not zstd as its name says"),
    "gzip without ending": Hostile("x.jsonl", gzip.compress(GOOD.encode()), 0, "x.jsonl: is gzip; add .gz to its name"),
    "gzip of gzip": Hostile("x.jsonl.gz", gzip.compress(gzip.compress(GOOD.encode())), 0, "x.jsonl.gz: is gzip packed with gzip; unpack it"),
    "bzip2": Hostile("x.jsonl", bz2.compress(GOOD.encode()), 0, "x.jsonl: is bzip2; unpack it, or pack it with gzip"),
    "noise named gz": Hostile("x.jsonl.gz", bytes(range(128, 256)), 0, "x.jsonl.gz: is not gzip as its name says; copy or pack it again"),
    "pickle named json": Hostile("x.json", pickle.dumps(Exploding()), 0, "x.json: is a Python pickle, which is never opened (it can run anything)"),
    "yaml named json": Hostile(
        "x.json", f"- !!python/object/apply:os.system ['touch {tempfile.gettempdir()}/mlops_llm_was_here']\n", 0, "x.json line 1: is not JSON"
    ),
    "hydra target": Hostile("x.jsonl", '{"_target_": "os.system", "command": "false", "prompt": "a"}\n', 1, ""),
    "python literals": Hostile("x.jsonl", "{'prompt': 'a', 'response': None}\n" + GOOD, 1, "x.jsonl line 1: is not JSON (Expecting property name"),
    "web page": Hostile("x.jsonl", "<!DOCTYPE html>\n<html>", 0, "x.jsonl: is a web page, not data; download the file itself"),
    "lfs pointer": Hostile("x.parquet", "version https://git-lfs.github.com/spec/v1\noid 1\n", 0, "x.parquet: is a Git LFS pointer"),
    "picture": Hostile("x.csv", b"\x89PNG\r\n\x1a\n0000", 0, "x.csv: is a picture; name a file of rows"),
    "parquet named jsonl": Hostile("x.jsonl", parquet(), 0, "x.jsonl: is Parquet; end its name in .parquet"),
    "arrow named parquet": Hostile("x.parquet", arrow(), 0, "x.parquet: is Arrow, not Parquet; write it again, or give it the right ending"),
    "jsonl named parquet": Hostile("x.parquet", GOOD, 0, "x.parquet: is text, not Parquet"),
    "jsonl named arrow": Hostile("x.arrow", GOOD, 0, "x.arrow: is text, not Arrow"),
    "csv named jsonl": Hostile("x.jsonl", "prompt,response\na,b\n", 0, "x.jsonl line 1: is not JSON (no value at column 1)"),
    "array named jsonl": Hostile("x.jsonl", f"[{GOOD}]", 1, ""),
    # Packed badly
    "gzip cut off": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode() * 9)[:-9], 9, "x.jsonl.gz line 10: is cut off within the packed data; copy or pack it again"),
    "gzip of an array cut off": Hostile("x.json.gz", gzip.compress(b"[" + b",\n".join([GOOD.encode()] * 9) + b"]")[:-9], 9, "x.json.gz line 18: is cut off within"),
    "gzip without its checksum": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode())[:-8], 1, "x.jsonl.gz line 2: is cut off within the packed data"),
    "gzip damaged": Hostile(
        "x.jsonl.gz", damaged(gzip.compress(os.urandom(4000).hex().encode()), 2000), 0, "x.jsonl.gz: is damaged within the packed data"
    ),
    "gzip with a wrong checksum": Hostile(
        "x.jsonl.gz", damaged(gzip.compress(GOOD.encode()), -8, 4)[:-4] + b"\0\0\0\0", 0, "x.jsonl.gz: is damaged within the packed data"
    ),
    "gzip with something behind it": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode()) + b"more", 1, "x.jsonl.gz line 2: is damaged within"),
    "gzip padded with zeros": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode()) + bytes(512), 1, ""),
    "gzip of two parts": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode()) * 2, 2, ""),
    "only the head of gzip": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode())[:10], 0, "x.jsonl.gz: is cut off within the packed data"),
    "zstd cut off": Hostile("x.jsonl.zst", zstd(os.urandom(50_000).hex().encode())[:-9], 0, "x.jsonl.zst: is cut off within the packed data"),
    "zstd damaged": Hostile("x.jsonl.zst", damaged(zstd(GOOD.encode()), 6), 0, "x.jsonl.zst: is damaged within the packed data"),
    "gzip bomb": Hostile("x.jsonl.gz", gzip.compress(b" " * (17 << 20), 9), 0, "x.jsonl.gz: unpacks to over 800 times its size (a bomb?)"),
    "gzip bomb behind a row": Hostile("x.jsonl.gz", gzip.compress(GOOD.encode() + bytes(17 << 20), 9), 1, "x.jsonl.gz line 2: unpacks to over 800 times its size"),
    "zstd bomb as parquet": Hostile("x.parquet.zst", zstd(bytes(17 << 20)), 0, "x.parquet.zst: unpacks to over 800 times its size (a bomb?)"),
    # Encodings
    "utf-8 with a mark": Hostile("x.jsonl", b"\xef\xbb\xbf" + CHINESE.encode(), 1, ""),
    "a mark within": Hostile("x.jsonl", (GOOD + "\ufeff" + GOOD).encode(), 1, "x.jsonl line 2: is not JSON (no value at column 1)"),
    "utf-16 with a mark": Hostile("x.jsonl", CHINESE.encode("utf-16"), 1, ""),
    "utf-16 without a mark": Hostile(
        "x.jsonl", CHINESE.encode("utf-16-le"), 0,
        "x.jsonl: looks like utf-16-le without a byte order mark; if it is, say so: read.encoding=utf-16-le",
    ),
    "utf-16 big endian without a mark": Hostile("x.csv", "提问,response\na,b\n".encode("utf-16-be"), 0, "x.csv: looks like utf-16-be without"),
    "utf-16 cut off": Hostile("x.jsonl", (GOOD + GOOD).encode("utf-16")[:-1], 0, "x.jsonl: line 2 is not utf-16-le"),
    "gb18030": Hostile(
        "x.jsonl", CHINESE.encode("gb18030"), 0,
        "x.jsonl: line 1 is not utf-8 (byte 0xbc); as gb18030 it says '价格是多少', as big5 it says '歎跡岆嗣屾'; "
        "if one reads right, say so: read.encoding=gb18030 (or big5); or save it as UTF-8",
    ),
    "gb18030 csv": Hostile("x.csv", "问题,答案\n价格,十元\n".encode("gb18030"), 0, "x.csv: line 1 is not utf-8 (byte 0xce); as gb18030 it says '问题,答案'"),
    "gb18030 array": Hostile("x.json", f"[\n{CHINESE}]".encode("gb18030"), 0, "x.json: line 2 is not utf-8 (byte 0xbc); as gb18030 it says '价格是多少'"),
    "gb18030 text": Hostile("x.txt", "价格是多少".encode("gb18030"), 0, "x.txt: line 1 is not utf-8 (byte 0xbc); as gb18030 it says '价格是多少'"),
    "big5": Hostile("x.jsonl", TRADITIONAL.encode("big5"), 0, "as big5 it says '價格是多少？請問'"),
    "one line in another encoding": Hostile(
        "x.jsonl", CHINESE.encode() * 3 + CHINESE.encode("gb18030") + GOOD.encode(), 4, "x.jsonl line 4: is not utf-8 (byte 0xbc); as gb18030"
    ),
    "cut within a character": Hostile("x.txt", "价格\n多少".encode()[:-1], 1, "x.txt line 2: is not utf-8 (byte 0xe5)"),
    "surrogates as bytes": Hostile("x.jsonl", b'{"prompt": "\xed\xa0\x80"}\n', 0, "x.jsonl: line 1 is not utf-8 (byte 0xed)"),
    "noise": Hostile("x.jsonl", bytes(range(128, 256)) * 20, 0, "x.jsonl: line 1 is not utf-8 (byte 0x80); is it a text?"),
    # JSON
    "crlf": Hostile("x.jsonl", GOOD.replace("\n", "\r\n") * 3, 3, ""),
    "cr only": Hostile("x.jsonl", GOOD.replace("\n", "\r") * 3, 3, ""),
    "no last line break": Hostile("x.jsonl", GOOD * 2 + GOOD.strip(), 3, ""),
    "cut off": Hostile("x.jsonl", GOOD * 2 + GOOD[:20], 2, "x.jsonl line 3: is not JSON (Unterminated string at column 17); mend or remove the line"),
    "array cut off": Hostile("x.json", f"[\n{GOOD},\n{GOOD}", 2, "x.json line 5: the array is not closed; the file was cut off: copy it again"),
    "array cut within a row": Hostile("x.json", f"[{GOOD},\n{GOOD[:20]}", 1, "x.json line 3: is not JSON (Unterminated string"),
    "array with a broken row": Hostile("x.json", f'[{GOOD},\n{{"a" 2}}, {GOOD * 9}]', 1, "x.json line 3: is not JSON (Expecting ':' delimiter at column 6); mend the"),
    "nul within a text": Hostile("x.jsonl", '{"prompt": "a\0b"}\n' + GOOD, 1, "x.jsonl line 1: is not JSON (Invalid control character at column 14)"),
    "nul as an escape": Hostile("x.jsonl", '{"prompt": "a\\u0000b"}\n', 1, ""),
    "zeros at the end": Hostile("x.jsonl", GOOD + "\0" * 4096, 1, "x.jsonl line 2: is not JSON (no value at column 1)"),
    "lone surrogates": Hostile("x.jsonl", '{"prompt": "a\\ud83d", "response": "\\udc00"}\n', 1, ""),
    "30 MB line": Hostile("x.jsonl", GOOD + '{"prompt": "' + "x" * (30 << 20) + '"}\n' + GOOD, 3, ""),
    "20,000 deep": Hostile("x.jsonl", GOOD + '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}\n" + GOOD, 2, "x.jsonl line 2: is nested deeper than 100"),
    "20,000 deep in an array": Hostile("x.json", '[{"a": ' + '{"a":' * 20_000 + "1" + "}" * 20_001 + "]", 0, "x.json line 1: is nested deeper than 100"),
    "20,000 deep, never closed": Hostile("x.json", "[" * 20_000, 0, "x.json line 1: is nested deeper than 100"),
    "200 deep": Hostile("x.jsonl", '{"a": ' + "[" * 200 + "]" * 200 + "}\n" + GOOD, 1, "x.jsonl line 1: is nested deeper than 100"),
    "200 deep in an array": Hostile("x.json", '[{"a": ' + "[" * 200 + "]" * 200 + "}, " + GOOD + "]", 1, "x.json line 1: is nested deeper than 100"),
    "duplicate keys": Hostile(
        "x.jsonl", '{"prompt": "a", "prompt": "b"}\n' + GOOD, 1, "x.jsonl line 1: has the field 'prompt' twice in one object; keep one of them"
    ),
    "duplicate keys within": Hostile("x.jsonl", '{"messages": [{"role": "a", "role" : "b"}]}\n', 0, "x.jsonl line 1: has the field 'role' twice in one object"),
    "NaN": Hostile("x.jsonl", '{"prompt": "a", "score": NaN}\n' + GOOD, 1, "x.jsonl line 1: holds NaN, which is not JSON; write null, or remove"),
    "Infinity": Hostile("x.json", '[{"score": [-Infinity]}]', 0, "x.json line 1: holds -Infinity, which is not JSON"),
    "1e999": Hostile("x.jsonl", '{"score": 1e999}\n', 0, "x.jsonl line 1: holds a number beyond what a computer counts (1e999); write a smaller one"),
    "too many digits": Hostile("x.jsonl", '{"n": ' + "1" * 5000 + "}\n" + GOOD, 1, "x.jsonl line 1: holds a number with too many digits"),
    "numbers as text": Hostile("x.jsonl", '{"prompt": 3, "response": "4"}\n', 1, ""),
    "rows of mixed kinds": Hostile("x.jsonl", GOOD + '{"chosen": "a", "rejected": "b"}\n3\n[1]\nnull\n{}\n', 3, "x.jsonl line 3: is a int, not an object with fields"),
    "bare texts": Hostile("x.json", '["a", "b"]', 0, "x.json line 1: is a str, not an object with fields"),
    "two rows a line": Hostile("x.jsonl", '{"a": 1}{"a": 2}\n' + GOOD, 1, "x.jsonl line 1: is not JSON (something stands behind the value at column 9)"),
    "commas behind lines": Hostile("x.jsonl", GOOD.replace("\n", ",\n") * 2, 0, "x.jsonl line 1: is not JSON (something stands behind the value"),
    "comments": Hostile("x.jsonl", "// rows\n" + GOOD, 1, "x.jsonl line 1: is not JSON (no value at column 1)"),
    "indented rows": Hostile("x.jsonl", json.dumps({"prompt": "a"}, indent=1), 0, "x.jsonl line 1: is not JSON"),
    "a config": Hostile("x.json", json.dumps({"model": "a", "steps": 3}, indent=1), 0, "x.json: is one object without a list of rows (it has: model, steps)"),
    "columns of lists": Hostile("x.json", json.dumps({"prompt": ["a"], "response": ["b"]}, indent=1), 0, "x.json: is one object without a list of rows"),
    "lists of rows under two keys": Hostile("x.json", '{"train": [{"a": 1}],\n"data": [{"a": 2}]}', 1, "x.json line 2: holds rows under 'data' as well as"),
    "rows object cut off": Hostile("x.json", '{"data": [{"a": 1}],\n"x": 1', 1, "x.json line 2: the object is not closed"),
    "other people's schema": Hostile("x.jsonl", '{"id": 7, "dialog": [["u", "hi"]], "meta": {"src": "x"}}\n', 1, ""),
    # CSV and text
    "quote never closed": Hostile("x.csv", 'a,b\n1,2\n"3,4\n5,6\n', 1, "x.csv line 3: a quote is not closed"),
    "quote in the wrong place": Hostile("x.csv", 'a,b\n"x" y,2\n3,4\n', 1, "x.csv line 2: is not CSV (',' expected after '\"')"),
    "too many cells": Hostile("x.csv", "a,b\n1,2,3\n4,5\n", 1, "x.csv line 2: has 3 cells, not 2 as the header; mend the line"),
    "too few cells": Hostile("x.csv", "a,b\n1\n4,5\n", 1, "x.csv line 2: has 1 cell, not 2 as the header"),
    "formulas": Hostile("x.csv", "prompt,response\n=HYPERLINK(0),+1+cmd|' /C calc'!A0\n", 1, ""),
    "no header": Hostile("x.csv", f"{'how much is it' * 9},ten\n", 0, "x.csv: the first line is no header: 'how much is it"),
    "numbers for a header": Hostile("x.csv", "1,2\n3,4\n", 0, "x.csv: the first line is no header: '1' is no name of a column; write"),
    "only a header": Hostile("x.csv", "prompt,response\n", 0, ""),
    "two columns of one name": Hostile("x.csv", "a,a\n1,2\n", 0, "x.csv: the first line is no header: two columns are called 'a'"),
    "a column without a name": Hostile("x.csv", ",prompt\n0,a\n", 0, "x.csv: the first line is no header: a column has no name"),
    "semicolons": Hostile("x.csv", "prompt;response\na;b\n", 0, "x.csv: its cells are separated by ';'; save it with commas as .csv"),
    "tabs named csv": Hostile("x.csv", "prompt\tresponse\na\tb\n", 0, "x.csv: its cells are separated by tabs"),
    "commas named tsv": Hostile("x.tsv", "prompt,response\na,b\n", 0, "x.tsv: its cells are separated by ','"),
    "nul in csv": Hostile("x.csv", "prompt,response\na\0,b\n", 1, ""),
    "cr only csv": Hostile("x.csv", "a,b\r1,2\r3,4\r", 2, ""),
    "line breaks in cells": Hostile("x.csv", 'a,b\n"1\r\n2",3\n\n"4","5\n\n6"\n', 2, ""),
    "not utf-8 csv cell": Hostile("x.csv", "a,b\n价格,价格\n".encode() + b"\xff,1\n2,3\n", 2, "x.csv line 3: is not utf-8 (byte 0xff)"),
    "nul in text": Hostile("x.txt", "a\0b\n", 1, ""),
    # Parquet and Arrow
    "parquet cut off": Hostile("x.parquet", parquet()[:-20], 0, "x.parquet: is Parquet without its end; the file was cut off: copy it again"),
    "parquet with wrong magic": Hostile("x.parquet", b"PAR2" + parquet()[4:], 0, "x.parquet: is something else, not Parquet"),
    "only parquet's magic": Hostile("x.parquet", b"PAR1PAR1", 0, "x.parquet: is Parquet without its end"),
    "parquet with a broken footer": Hostile("x.parquet", parquet()[:-8] + b"\xff\xff\xff\x7fPAR1", 0, "x.parquet: cannot be read as Parquet"),
    "parquet damaged": Hostile("x.parquet", damaged(parquet(), 4, 60), 0, "x.parquet row 1: is damaged ("),
    "parquet without rows": Hostile("x.parquet", parquet(pa.table({"prompt": pa.array([], pa.string())})), 0, ""),
    "parquet without columns": Hostile("x.parquet", parquet(pa.table({})), 0, ""),
    "parquet with nested values": Hostile("x.parquet", parquet(pa.table({"messages": [[{"role": "user", "content": [{"text": "a"}]}]]})), 1, ""),
    "parquet with bytes": Hostile("x.parquet", parquet(pa.table({"image": [b"\xff"]})), 0, "x.parquet: the column 'image' holds bytes (binary), which no"),
    "parquet with NaN": Hostile("x.parquet", parquet(pa.table({"score": [1.0, float("nan")]})), 1, "x.parquet row 2: holds NaN or Infinity in 'score'"),
    "encrypted parquet": Hostile("x.parquet", b"PARE" + bytes(20) + b"PARE", 0, "x.parquet: is encrypted; write it without encryption"),
    "parquet in cut gzip": Hostile("x.parquet.gz", gzip.compress(parquet())[:-20], 0, "x.parquet.gz: is cut off within the packed data"),
    "arrow stream": Hostile("x.arrow", arrow(stream=True), 100, ""),
    "arrow file": Hostile("x.feather", arrow(), 100, ""),
    "arrow cut off": Hostile("x.arrow", arrow()[:-20], 0, "x.arrow: is Arrow without its end; the file was cut off: copy it again"),
    "arrow stream cut off": Hostile("x.arrow", arrow(stream=True)[:-250], 50, "x.arrow row 51: is damaged ("),
    "first feather": Hostile("x.feather", b"FEA1" + bytes(40), 0, "x.feather: is the first form of Feather, not Arrow"),
    "arrow with a text that is not utf-8": Hostile("x.arrow", arrow(table=invalid_utf8()), 0, "x.arrow row 1: holds a text that is not UTF-8"),
    "arrow with two columns of one name": Hostile(
        "x.arrow", arrow(table=pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])), 0, "x.arrow: has two columns called 'a'; rename one"
    ),
}  # fmt: skip


def look(path: Path) -> tuple[int, list[str]]:
    """How many rows are good, and all that is said."""
    good, said = 0, []
    try:
        for record in records(path):
            good += record.row is not None
            if record.row is None:
                said.append(str(UserError(record.problem, record.where, record.remedy)))
    except UserError as error:
        assert error.where
        said.append(str(error))
    return good, [line.replace(f"{path.parent}/", "").replace(f"{path.name}/", "") for line in said]


@pytest.fixture
def made(tmp_path: Path) -> Callable[[Hostile], Path]:
    def make(case: Hostile) -> Path:
        path = tmp_path / case.file
        if callable(case.content):
            case.content(path)
        else:
            path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
        return path

    return make


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_each_gives_its_good_rows_and_one_line(made, case):
    good, said = look(made(case))
    assert (said[0] if said else "")[: len(case.finding)] == case.finding or case.finding in said[0]
    assert bool(said) == bool(case.finding)
    assert good == case.good
    for line in said:
        assert "\n" not in line
        assert len(line) < 400


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_the_strict_door_says_the_same_first(made, case):
    path = made(case)
    _, said = look(path)
    if case.good and not said:
        assert len(read_path(path).rows) == case.good
        return
    with pytest.raises(UserError) as caught:
        read_path(path)
    line = str(caught.value).replace(f"{path.parent}/", "").replace(f"{path.name}/", "")
    assert line == (said[0] if said else f"{path.name}: the file holds no rows; give it rows")


def test_there_are_enough_of_them():
    assert len(FILES) >= 60


def test_nothing_named_in_a_file_was_run():
    assert not (Path(tempfile.gettempdir()) / "mlops_llm_was_here").exists()


LONG = "k" * 5000


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("x.jsonl", f'{{"{LONG}": 1, "{LONG}": 2}}'),
        ("x.jsonl", f'"{LONG}"'),
        ("x.jsonl", LONG),
        ("x.jsonl", f'{{"a": "{LONG}'),
        ("x.jsonl", f'{{"a": "{LONG}'.encode() + b"\xff"),
        ("x.jsonl", b'{"a": "\xff' + LONG.encode()),
        ("x.jsonl", '{"a": "' + "\u4e00" * 100 + '"}\n' + "k" * 200 + "\n"),
        ("x.json", json.dumps({LONG: 1, f"{LONG}2": 2}, indent=1)),
        ("x.json", f'[{{"{LONG}": NaN}}, {{"a": 1e{"9" * 4000}}}, {LONG}]'),
        ("x.csv", f"{LONG},b\n1,2\n"),
        ("x.csv", f'a,b\n"{LONG}" x,2\n{LONG}\n"{LONG}'),
        ("x.csv", f"a,{LONG[:80]}:json\n1,{LONG}\n"),
        ("x.csv", f"{LONG[:90]},{LONG[:90]}\n1,2\n"),
        ("x.parquet", parquet(pa.table({LONG: [b"1"]}))),
        ("x.parquet", parquet(pa.table({LONG: [float("nan")]}))),
    ],
)
def test_no_message_repeats_a_long_row(tmp_path, file, content):
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    _, said = look(path)
    assert said
    for line in said:
        assert line.count("k") < 150
        assert len(line) < 400
