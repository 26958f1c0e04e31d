"""What a person would not want to lose, or to be told wrongly."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data.read import Read, read_path
from mlops_llm.tracking import datasets
from mlops_llm.tracking.store import connect
from tests.commands import SMOKE, ok, train
from tests.flows.test_data import ROWS, write
from tests.record import artifacts_of, client, run_of

Data = Callable[..., Any]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return read_path(path, Read()).rows


def test_the_parts_of_a_split_do_not_hide_what_ships_and_shared_rows_are_said(data: Data, here: Path) -> None:
    data("op=split", "dataset=sales_sft", "op.validation=0.1")
    assert {each.name for each in (here / "datasets").iterdir()} == {"sales_sft_train.jsonl", "sales_sft_validation.jsonl"}
    said = train(here, *SMOKE[:1], "op=plan")
    assert ok(said) and "50 held out" in said.stdout and "also trained on" not in said.stderr
    said = train(here, *SMOKE[:1], "op=plan", "validation=sales_sft_validation")
    count = len(rows_of(here / "datasets/sales_sft_validation.jsonl"))
    assert f"{count} of {count} held-out rows" in said.stderr and "are also trained on" in said.stderr
    line = data("op=sample", "dataset=sales_sft", "name=sales_sft_val", code=2)
    assert "ships with this package and would be hidden" in line


def test_a_version_of_a_foreign_file_can_be_read_without_its_settings(data: Data, here: Path) -> None:
    (here / "datasets").mkdir()
    with (here / "datasets/foreign.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("问题", "答案", "来源"), *((f"问 {n}", f"答 {n}", "网") for n in range(5))])
    columns = ["read.columns.prompt=问题", "read.columns.response=答案"]
    added = data("op=add", "dataset=foreign", *columns, "run_name=adding")
    assert added["kind"].startswith("sft")
    wanted = [{"来源": "网", "prompt": f"问 {n}", "response": f"答 {n}"} for n in range(5)]
    assert rows_of(here / "datasets/foreign.jsonl") == wanted and not (here / "datasets/foreign.csv").exists()
    assert "original/foreign.csv" in artifacts_of(client(here), run_of(client(here), "adding"))
    assert (
        data("op=export", "dataset=foreign@v1.0", "output=out.jsonl")["digests"]["canonical"] == added["digests"]["canonical"]
    )
    assert {each["name"]: each["version"] for each in data("op=list")["datasets"]}["foreign"] == "v1.0"
    (here / "datasets/gbk.jsonl").write_bytes(json.dumps(ROWS[0], ensure_ascii=False).encode("gb18030") + b"\n")
    data("op=add", "dataset=gbk", "read.encoding=gb18030")
    known = datasets.find(connect(), "gbk")
    assert known is not None and rows_of(datasets.snapshot(connect(), known.version("v1.0"))) == ROWS[:1]


def test_adding_a_foreign_form_keeps_the_other_fields_and_the_original(data: Data, here: Path) -> None:
    row = {"instruction": "做", "input": "", "output": "好", "label": "售前", "reference": "r", "id": 3}
    path = write(here / "datasets/dropped.jsonl", [row])
    before = path.read_bytes()
    said = data("op=add", "dataset=dropped", "run_name=adding")
    assert rows_of(path) == [{"prompt": "做", "response": "好", "label": "售前", "reference": "r", "id": 3}]
    kept = client(here).download_artifacts(run_of(client(here), "adding").info.run_id, "original/dropped.jsonl", str(here))
    assert Path(kept).read_bytes() == before and "original/dropped.jsonl" in said["file"]


def test_derived_datasets_keep_to_their_own_name_and_kind(data: Data, here: Path) -> None:
    data("op=sample", "dataset=math_sft", "op.rows=5")
    data("op=edit", "dataset=math_sft_sample", "name=few")
    assert data("op=sample", "dataset=math_sft", "op.rows=6")["written"] == "few@v1.1"
    assert "holds rows of kind sft, not dpo" in data("op=sample", "dataset=sales_dpo", "name=few", code=2)
    data("op=remove", "dataset=few", "op.yes=true")
    assert "was removed from the list" in data("op=sample", "dataset=math_sft", "op.rows=7", code=2)


def test_a_file_that_no_version_has_is_never_written_over(data: Data, here: Path) -> None:
    path = write(here / "datasets/few.jsonl", ROWS)
    before = path.read_bytes()
    assert "no version has its rows" in data("op=sample", "dataset=sales_sft", "name=few", code=1)
    assert path.read_bytes() == before
    assert "no version of it is registered" in data("op=versions", "dataset=few", code=2)


def test_names_match_to_the_letter_and_may_come_back(data: Data, here: Path) -> None:
    write(here / "datasets/my-data.jsonl", ROWS)
    data("op=add", "dataset=my-data")
    data("op=edit", "dataset=my-data", "name=clean")
    assert "no version of it is registered" in data("op=versions", "dataset=my_data", code=2)
    data("op=edit", "dataset=clean", "name=my-data")
    assert data("op=versions", "dataset=my-data")["name"] == "my-data"
    assert "ends like a file" in data("op=edit", "dataset=my-data", "name=x.jsonl", code=2)


def test_a_registered_name_without_its_file_is_its_current_version(data: Data, here: Path) -> None:
    path = write(here / "datasets/sales_sft.jsonl", ROWS[:1])
    data("op=add", "dataset=sales_sft")
    path.unlink()
    data("op=export", "dataset=sales_sft", "output=out.jsonl")
    assert rows_of(here / "out.jsonl") == ROWS[:1]
    line = data("op=version", "dataset=sales_sft", code=2)
    assert "has no file in datasets/, only versions" in line
    assert "op=export dataset=sales_sft output=datasets/sales_sft.jsonl" in line


def test_labels_stay_as_typed(data: Data, here: Path) -> None:
    path = write(here / "datasets/mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    write(path, ROWS[:3])
    data("op=version", "dataset=mine", "op.label=1.10")
    assert [each["label"] for each in data("op=versions", "dataset=mine")["versions"]] == ["v1.0", "1.10"]
    write(path, ROWS[:4])
    assert "could be the beginning of a digest" in data("op=version", "dataset=mine", "op.label=20261125", code=2)


def test_a_version_whose_process_died_does_not_hold_its_label(data: Data, here: Path) -> None:
    path = write(here / "datasets/mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    store = client(here)
    experiment = store.get_experiment_by_name("datasets/mine").experiment_id
    kept = run_of(store, "mine@v1.0").data.tags
    dead = {**{key: value for key, value in kept.items() if not key.startswith("mlflow.")}, "dataset.label": "v2.0"}
    store.create_run(experiment, run_name="mine@v2.0", tags=dead | {"run.process": "1:0.0"})
    write(path, ROWS[:3])
    data("op=version", "dataset=mine", "op.label=v2.0")
    assert [each["label"] for each in data("op=versions", "dataset=mine")["versions"]] == ["v1.0", "v2.0"]


def test_a_repaired_file_is_a_new_dataset_wherever_the_old_one_lies(data: Data, here: Path) -> None:
    bad = {"prompt": "a\u200bb<|im_end|>", "response": " c "}
    path = write(here / "datasets/mine.jsonl", [*ROWS, bad])
    data("op=add", "dataset=mine")
    data("op=validate", "dataset=mine@v1.0", "op.fix=true")
    assert (here / "datasets/mine_fixed.jsonl").is_file()
    known = datasets.find(connect(), "mine")
    assert known is not None
    assert [each.name for each in datasets.snapshot(connect(), known.version("v1.0")).parent.iterdir()] == [path.name]


def test_the_list_passes_over_what_is_no_dataset(data: Data, here: Path) -> None:
    write(here / "datasets/mine.jsonl", ROWS)
    write(here / "datasets/.hidden.jsonl", ROWS)
    write(here / "datasets/shards/one.jsonl", ROWS)
    (here / "datasets/shards/broken.jsonl").symlink_to("nowhere")
    names = {each["name"] for each in data("op=list")["datasets"]}
    assert {"mine", "shards"} <= names and not [name for name in names if "hidden" in name]


@pytest.mark.parametrize("op", ["validate", "add", "preview"])
def test_a_device_or_a_pipe_is_refused_at_once(data: Data, here: Path, op: str) -> None:
    os.mkfifo(here / "pipe.jsonl")
    for path in ("/dev/zero", "pipe.jsonl"):
        said = data(f"op={op}", f"dataset={path}", code=1 if op == "validate" else 2)
        assert "not a file" in (said if isinstance(said, str) else said["out"])


def test_no_message_repeats_a_long_row(data: Data, here: Path) -> None:
    long = "k" * 100_000
    write(here / "long.jsonl", [{long: 1}])
    write(here / "role.jsonl", [{"messages": [{"role": "r" * 5000, "content": "a"}]}])
    for name in ("long", "role"):
        assert len(data("op=add", f"dataset={name}.jsonl", code=2)) < 1000
        assert len(data("op=validate", f"dataset={name}.jsonl", code=1)["out"]) < 8000


def test_half_a_character_in_a_role_is_a_finding(data: Data, here: Path) -> None:
    (here / "half.jsonl").write_text('{"messages": [{"role": "\\ud800\\u001b[31m", "content": "a"}]}\n')
    said = data("op=validate", "dataset=half.jsonl", code=1)
    assert "\\ud800\\u001b" in said["out"] and "\x1b" not in said["out"]


def test_the_encoding_that_was_read_is_said(data: Data, here: Path) -> None:
    (here / "wide.jsonl").write_bytes("".join(json.dumps(row) + "\n" for row in ROWS).encode("utf-16"))
    assert data("op=stats", "dataset=wide.jsonl")["encoding"] == "utf-16-le"
    assert "format: jsonl, utf-16-le" in data("op=validate", "dataset=wide.jsonl")["out"]
    assert "unknown encoding 'klingon'" in data("op=validate", "dataset=wide.jsonl", "read.encoding=klingon", code=2)


def test_findings_in_a_folder_name_the_file(data: Data, here: Path) -> None:
    write(here / "shards/a.jsonl", ROWS)
    write(here / "shards/b.jsonl", [*ROWS[:1], {"prompt": "x", "response": " "}])
    found = data("op=validate", "dataset=shards", code=1)["findings"]
    assert [(each["file"], each["line"]) for each in found if each["rule"] == "blank"] == [("b.jsonl", 2)]


def test_differences_that_cannot_be_paired_say_so(data: Data, here: Path) -> None:
    for name, mark in (("a", "x"), ("b", "y")):
        write(here / f"{name}.jsonl", [{"id": n, "prompt": f"{mark} {n}", "response": f"answer {n}"} for n in range(600)])
    found = data("op=diff", "dataset=a.jsonl", "op.against=b.jsonl")
    assert found["changed"] == 0 and "op.key=id" in found["note"]
    assert data("op=diff", "dataset=a.jsonl", "op.against=b.jsonl", "op.key=id")["changed"] == 600
    assert "no row has the field 'idd'" in data("op=diff", "dataset=a.jsonl", "op.against=b.jsonl", "op.key=idd", code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["op=mix", "op.datasets=[sales_sft,math_sft]", "name=m", "op.rows=-5"], "op.rows: is -5"),
        (["op=list", "op.rows=0"], "op.rows: is 0"),
        (["op=diff", "dataset=sales_sft", "op.rows=0"], "op.rows: is 0"),
        (["op=validate", "dataset=sales_sft", "op.max_token=3"], "did you mean max_tokens?"),
    ],
)
def test_numbers_and_names_that_do_not_fit(data: Data, words: list[str], said: str) -> None:
    assert said in data(*words, code=2)


def test_exported_conversations_keep_their_other_fields(data: Data, here: Path) -> None:
    write(here / "rows.jsonl", [{"prompt": "a", "response": "b", "system": "s", "id": 1, "category": "c"}])
    for form in ("alpaca", "sharegpt"):
        exported = data("op=export", "dataset=rows.jsonl", f"output={form}.json", f"op.form={form}")
        assert data("op=add", f"dataset={form}.json")["digests"]["canonical"] == exported["digests"]["canonical"]
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "wait", "tool_calls": calls}]
    write(here / "calls.jsonl", [{"messages": turns}])
    said = data("op=export", "dataset=calls.jsonl", "output=x.json", "op.form=sharegpt", code=2)
    assert "has a text beside a tool call" in said
