"""What a name stands for: files, folders, former names, names of what ships, and files that need settings to be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data.read import Read, read_path
from tests.flows.test_data import write
from tests.record import client

Data = Callable[..., Any]
ROWS = [{"prompt": f"问 {number}", "response": f"答 {number}"} for number in range(6)]
COLUMNS = ["read.encoding=gb18030", "read.columns.prompt=问", "read.columns.response=答"]


def listed(data: Data) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in data("op=list")["datasets"]}


def test_no_name_hides_what_ships(data: Data, here: Path) -> None:
    write(here / "datasets/mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    assert "ships with this package" in data("op=edit", "dataset=mine", "name=sales_sft", code=2)
    outside = write(here / "sales_sft.jsonl", ROWS)
    assert "ships with this package" in data("op=add", f"dataset={outside}", code=2)
    assert data("op=add", "dataset=sales_sft")["rows"] == 500  # what ships may be registered
    (here / "datasets/sales_sft.jsonl").unlink()
    assert listed(data)["sales_sft"]["where"] == "record"  # as every other command sees it


def test_a_folder_of_shards_stays_one(data: Data, here: Path) -> None:
    for place in range(2):
        write(here / f"datasets/shards/part-{place}.jsonl", ROWS[place * 3 : place * 3 + 3])
    assert data("op=add", "dataset=shards")["file"] == "datasets/shards"
    assert not (here / "datasets/shards.jsonl").exists() and listed(data)["shards"]["version"] == "v1.0"
    write(here / "datasets/shards/part-2.jsonl", [{"prompt": "新", "response": "行"}])
    assert listed(data)["shards"]["version"] == "v1.0*" and listed(data)["shards"]["rows"] == 7
    assert data("op=version", "dataset=shards")["rows"] == 7
    assert "is a folder of shards" in data("op=use", "dataset=shards@v1.0", code=2)
    assert data("op=use", "dataset=shards@v1.0", "op.keep_file=true")["label"] == "v1.0"
    data("op=edit", "dataset=shards", "name=parts")
    assert (here / "datasets/parts/part-2.jsonl").is_file() and listed(data)["parts"]["rows"] == 7
    assert "is a folder of shards" in data("op=sample", "dataset=sales_sft", "op.rows=3", "name=parts", code=2)


def test_a_folder_of_another_shape_is_not_converted_in_place(data: Data, here: Path) -> None:
    write(here / "datasets/alpaca/one.jsonl", [{"instruction": "做", "input": "", "output": "好"}])
    assert "give the new dataset another name=" in data("op=add", "dataset=alpaca", code=2)
    assert data("op=add", "dataset=alpaca", "name=turned")["file"] == "datasets/turned.jsonl"
    assert [path.name for path in (here / "datasets/alpaca").iterdir()] == ["one.jsonl"]


def test_a_file_that_takes_a_former_name_is_itself(data: Data, here: Path) -> None:
    write(here / "datasets/old.jsonl", ROWS)
    data("op=add", "dataset=old")
    data("op=edit", "dataset=old", "name=new")
    other = write(here / "datasets/old.jsonl", ROWS[:2])
    assert data("op=stats", "dataset=old", "op.near=false")["rows"] == 2
    assert "'old' is a former name of 'new'" in data("op=add", "dataset=old", code=2)
    assert "'old' is a former name of 'new'" in data("op=version", "dataset=old", code=2)
    other.unlink()
    assert data("op=versions", "dataset=old")["name"] == "new"


def test_of_several_files_of_one_name_every_command_reads_the_same(data: Data, here: Path) -> None:
    write(here / "datasets/two.jsonl", ROWS)
    (here / "datasets/two.csv").write_text("prompt,chosen,rejected\na,b,c\n", "utf-8")
    assert (listed(data)["two"]["rows"], listed(data)["two"]["kind"]) == (6, "sft")
    assert data("op=stats", "dataset=two", "op.near=false")["rows"] == 6


@pytest.mark.parametrize("name", ["UP.JSONL", "a b@c.jsonl", "dd.jsonl/part.jsonl"])
def test_what_is_listed_is_found(data: Data, here: Path, name: str) -> None:
    write(here / "datasets" / name, ROWS)
    (called,) = [each for each, facts in listed(data).items() if facts["where"] == "datasets/"]
    assert data("op=stats", f"dataset={called}", "op.near=false")["rows"] == 6


def test_what_cannot_be_read_is_not_offered(data: Data, here: Path) -> None:
    (here / "datasets").mkdir()
    os.mkfifo(here / "datasets/pipe.jsonl")
    (here / "datasets/gone.jsonl").symlink_to(here / "nowhere.jsonl")
    line = data("op=stats", "dataset=nothing", code=2)
    assert "pipe" not in line and "gone" not in line and "sales_sft" in line


def test_a_file_written_anew_with_the_same_rows_is_kept_already(data: Data, here: Path) -> None:
    path = write(here / "datasets/mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    write(path, ROWS[:3])
    data("op=version", "dataset=mine")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").replace(b'": ', b'":'))
    data("op=use", "dataset=mine@v1.0")
    assert read_path(path, Read()).rows == ROWS


def test_a_version_read_with_settings_compares_with_its_file(data: Data, here: Path) -> None:
    path = here / "datasets/cn.csv"
    path.parent.mkdir()
    path.write_text("问,答\n几点开门,九点\n几点关门,五点\n", "gb18030")
    data("op=version", "dataset=cn", *COLUMNS)
    assert (listed(data)["cn"]["version"], listed(data)["cn"]["rows"]) == ("v1.0", 2)
    path.write_text("问,答\n几点开门,九点\n几点关门,六点\n", "gb18030")
    changed = data("op=diff", "dataset=cn", *COLUMNS)
    assert changed["changed"] == 1
    data("op=version", "dataset=cn", *COLUMNS)
    data("op=use", "dataset=cn@v1.0")
    path.unlink(missing_ok=True)
    (here / "datasets/cn.jsonl").unlink(missing_ok=True)
    assert data("op=stats", "dataset=cn", "op.near=false", "read.encoding=latin-1")["languages"] == {"zh": 2}


def test_a_repaired_file_gets_a_name_that_can_be_one(data: Data, here: Path) -> None:
    path = write(here / "datasets/mine.jsonl", [*ROWS, ROWS[0]])
    fixing = ["op=validate", "op.fix=true"]
    for name in ("../evil", "a/b"):
        assert "cannot be a dataset's name" in data(*fixing, "dataset=mine", f"name={name}", code=2)
    data("op=add", "dataset=mine")
    data("op=edit", "dataset=mine", "name=other")
    assert path.with_name("other.jsonl").is_file()
    data(*fixing, "dataset=other@v1.0")
    assert (here / "datasets/other_fixed.jsonl").is_file()


def test_a_dataset_keeps_its_kind_and_a_removed_one_gets_no_version(data: Data, here: Path) -> None:
    path = write(here / "datasets/mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    write(path, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert "holds rows of kind sft, not dpo" in data("op=version", "dataset=mine", code=2)
    write(path, ROWS[:2])
    data("op=remove", "dataset=mine", "op.yes=true")
    outside = write(here / "more.jsonl", ROWS[:1])
    assert "was removed from the list" in data("op=version", f"dataset={outside}", "name=mine", code=2)


def test_a_deleted_experiment_is_told_with_what_helps(data: Data, here: Path) -> None:
    write(here / "datasets/mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    store = client(here)
    store.delete_experiment(store.get_experiment_by_name("datasets/mine").experiment_id)
    assert "restore it there or choose another name=" in data("op=add", "dataset=mine", code=1)
