"""Data sets of the hub; the library `datasets` takes a folder of that name for one, so no connection is needed."""

from __future__ import annotations

import json

import pytest

from mlops_llm.data import hub
from mlops_llm.data.read import find, name, read
from mlops_llm.data.rows import Read
from mlops_llm.errors import UserError

README = """---
configs:
- config_name: en
  data_files: en.jsonl
- config_name: zh
  data_files: zh.jsonl
---
"""


@pytest.fixture(autouse=True)
def repositories(here, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    files = {
        "org/splits/train.jsonl": '{"q": "a"}\n{"q": "b"}\n',
        "org/splits/test.jsonl": '{"q": "c"}\n',
        "org/held/test.jsonl": '{"q": "c"}\n',
        "org/configs/en.jsonl": '{"q": "en"}\n',
        "org/configs/zh.jsonl": '{"q": "zh"}\n',
        "org/configs/README.md": README,
        "org/empty/README.md": "nothing here\n",
        "org/broken/train.csv": "a,b\n1,2\n1,2,3\n",
        "org/script/script.py": "open('was_here', 'w').close()\n",
    }  # fmt: skip
    for file, content in files.items():
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(content)
    yield
    datasets.enable_progress_bars()


def refused(ref: str, how: Read | None = None) -> str:
    with pytest.raises(UserError) as caught:
        list(hub.rows(ref, how))
    line = str(caught.value)
    assert line.startswith(f"{ref}: ")
    assert "\n" not in line
    return line.removeprefix(f"{ref}: ")


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("hf:org/splits", ["a", "b"]),
        ("hf:org/splits:test", ["c"]),
        ("hf:org/held", ["c"]),
        ("hf:org/configs/zh", ["zh"]),
        ("hf:org/configs/zh:train", ["zh"]),
    ],
)
def test_rows_of_a_split(ref, found):
    records = list(hub.rows(ref))
    assert [record.row for record in records] == [{"q": each} for each in found]
    assert records[-1].where == f"{ref} row {len(found)}"


def test_read_takes_them_like_a_file():
    source = read("hf:org/splits", Read(columns={"prompt": "q"}))
    assert source.rows == [{"prompt": "a"}, {"prompt": "b"}]
    assert (source.name, source.version) == ("splits", "hf:org/splits")
    assert source.raw == source.canonical
    assert source.where(1) == "hf:org/splits row 2"


@pytest.mark.parametrize(
    ("ref", "line"),
    [
        ("hf:org/splits:dev", "has no split 'dev'; one of: train, test; e.g. hf:org/splits:train"),
        ("hf:org/configs", "has several configs; one of: en, zh; e.g. hf:org/configs/en"),
        ("hf:org/configs/fr:test", "has no config 'fr'; one of: en, zh; e.g. hf:org/configs/en:test"),
        ("hf:org/none", "is not here, and the hub cannot be reached; check the name and the connection"),
        ("hf:org/empty", "holds no files of rows; look at its page"),
        ("hf:org/broken", "cannot be loaded ("),
        ("hf:", "is no hub data set; write hf:ORG/NAME"),
        ("hf:../../etc", "is no hub data set; write hf:ORG/NAME"),
        ("hf:a b", "is no hub data set; write hf:ORG/NAME"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(ref, line):
    assert refused(ref).startswith(line)


@pytest.mark.parametrize(
    ("ref", "expected"), [("hf:org/a.b", "a.b"), ("hf:a", "a"), ("hf:org/a:test", "a_test"), ("hf:org/a/zh:test", "a_zh_test")]
)
def test_names(ref, expected):
    assert name(find(ref)) == expected


def test_a_column_that_is_not_there():
    assert refused("hf:org/splits", Read(columns={"prompt": "x"})) == "has no column 'x'; it has: q"


def test_code_of_a_data_set_is_not_run(here):
    assert "scripts are no longer supported" in refused("hf:org/script")
    assert not (here / "was_here").exists()


def test_bytes_are_no_rows(here):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (here / "org" / "bytes").mkdir()
    pq.write_table(pa.table({"image": [b"x"]}), here / "org" / "bytes" / "train.parquet")
    assert refused("hf:org/bytes").startswith("the column 'image' holds bytes")


def test_a_message_is_short(here):
    (here / "org" / "wide").mkdir()
    (here / "org" / "wide" / "train.jsonl").write_text(json.dumps({f"column{number}": 1 for number in range(500)}))
    assert len(refused("hf:org/wide", Read(columns={"prompt": "x"}))) < 300
