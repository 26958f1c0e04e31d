"""Datasets from a dropped-in file to a version that a training names, by real commands on a real record."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlops_llm.data.identity import identify
from mlops_llm.data.read import Read, read_path, shipped
from mlops_llm.data.ref import open_dataset, version_of
from mlops_llm.tracking import datasets
from mlops_llm.tracking.store import connect
from tests.commands import SMOKE, ok, train
from tests.record import client, run_of

ROWS = [{"prompt": f"问题 {number}", "response": f"回答 {number}"} for number in range(20)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_a_dropped_in_file_is_listed_at_once(data: Callable[..., Any], here: Path) -> None:
    write(here / "datasets" / "mine.jsonl", ROWS)
    write(here / "datasets" / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    listed = {each["name"]: each for each in data("op=list")["datasets"]}
    assert (listed["mine"]["kind"], listed["mine"]["rows"], listed["mine"]["version"]) == ("sft", 20, "")
    assert listed["sales_dpo"]["where"] == "shipped" and listed["sales_sft"]["rows"] == 500
    assert {each["name"] for each in data("op=list", "kind=dpo")["datasets"]} == {"pairs", "sales_dpo"}
    by_rows = [each["rows"] for each in data("op=list", "op.sort=rows")["datasets"]]
    assert by_rows == sorted(by_rows, reverse=True)
    few = data("op=list", "op.rows=2")
    assert len(few["datasets"]) == len(by_rows) and f"… and {len(by_rows) - 2} more" in few["out"]
    assert not (here / "mlflow.db").exists(), "looking creates no record"


def test_unchanged_files_are_not_read_again(data: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(here / "datasets" / "mine.jsonl", ROWS)
    data("op=list")
    read: list[Path] = []
    monkeypatch.setattr("mlops_llm.data.catalog.identify", lambda path: read.append(path) or identify(path))
    data("op=list")
    assert read == []
    write(path, ROWS[:3])
    assert {each["name"]: each["rows"] for each in data("op=list")["datasets"]}["mine"] == 3
    assert read == [path]


def test_a_file_that_cannot_be_read_is_listed_with_its_reason(data: Callable[..., Any], here: Path) -> None:
    write(here / "datasets" / "good.jsonl", ROWS)
    (here / "datasets" / "bad.jsonl").write_text('{"prompt": "a"\n')
    listed = {each["name"]: each for each in data("op=list")["datasets"]}
    assert "bad.jsonl line 1: is not JSON" in listed["bad"]["problem"] and listed["good"]["problem"] == ""


def test_add_converts_registers_and_refuses_a_taken_name(data: Callable[..., Any], here: Path) -> None:
    source = write(here / "alpaca.jsonl", [{"instruction": f"做 {n}", "input": "", "output": f"好 {n}"} for n in range(5)])
    added = data("op=add", f"dataset={source}", "op.description=试 (一)")
    assert added["version"] == "alpaca@v1.0" and added["kind"] == "sft (told from the fields)"
    kept = here / "datasets" / "alpaca.jsonl"
    assert json.loads(kept.read_text("utf-8").splitlines()[0]) == {"prompt": "做 0", "response": "好 0"}
    assert added["digests"]["canonical"] == read_path(kept, Read()).canonical
    assert {each["name"]: each for each in data("op=list")["datasets"]}["alpaca"]["description"] == "试 (一)"
    said = data("op=add", f"dataset={source}", code=2)
    assert "'alpaca' is registered already" in said and "op=version dataset=alpaca" in said
    assert data("op=add", f"dataset={source}", "name=other")["version"] == "other@v1.0"
    assert "cannot be a dataset's name" in data("op=add", f"dataset={source}", "name=a/b", code=2)


def test_versions_are_immutable_and_the_file_may_be_edited(data: Callable[..., Any], here: Path) -> None:
    path = write(here / "datasets" / "mine.jsonl", ROWS)
    first = data("op=add", "dataset=mine")
    said = data("op=version", "dataset=mine", code=2)
    assert "the rows are those of mine@v1.0" in said and "op.allow_same=true" in said
    changed = [dict(ROWS[0], response="别的"), *ROWS[1:], {"prompt": "新", "response": "行"}]
    with path.open("r+", encoding="utf-8") as file:  # edited in place: the snapshot is no link to it
        file.truncate(0)
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in changed))
    second = data("op=version", "dataset=mine", "op.label=v2.0", "op.description=加了 1 行")
    assert "'mine' has a version 'v1.0' already" in data(
        "op=version", "dataset=mine", "op.label=v1.0", "op.allow_same=true", code=2
    )
    listed = data("op=versions", "dataset=mine")["versions"]
    assert [(each["label"], each["rows"], each["current"]) for each in listed] == [("v1.0", 20, False), ("v2.0", 21, True)]
    assert [each["canonical"] for each in listed] == [first["digests"]["canonical"], second["digests"]["canonical"]]
    assert listed[1]["parents"] == ["mine@v1.0"] and listed[1]["description"] == "加了 1 行"
    known = datasets.find(connect(), "mine")
    assert known is not None
    assert read_path(datasets.snapshot(connect(), known.version("v1.0")), Read()).rows == ROWS
    assert known.version(first["digests"]["canonical"][:8]).label == "v1.0"
    found = data("op=diff", "dataset=mine@v1.0", "op.against=mine@v2.0")
    assert (found["added"], found["removed"], found["changed"]) == (1, 0, 1)
    assert found["rows_changed"] == [{"before": ROWS[0], "after": changed[0]}] and found["rows_added"] == [changed[-1]]


def test_an_evaluation_set_says_what_it_is_for(data: Callable[..., Any], here: Path) -> None:
    rows = [{"prompt": f"问题 {number}", "reference": "答", "label": "物流"} for number in range(4)]
    path = write(here / "datasets" / "asked.jsonl", rows)
    said = data("op=add", "dataset=asked", "op.ability=对话质量", "kind=sft", code=2)
    assert said.startswith("op.ability: is given, but the rows are of kind sft")
    added = data("op=add", "dataset=asked", "kind=eval", "op.ability=对话质量", "op.method=judge")
    assert (added["ability"], added["method"]) == ("对话质量", "judge")
    data("op=version", "dataset=asked", "op.method=[bleu]")  # the same rows, scored otherwise
    assert "the rows are those of asked@v1.1" in data("op=version", "dataset=asked", code=2)
    write(path, rows[:2])
    data("op=version", "dataset=asked", "op.method=[bleu, label]")
    data("op=sample", "dataset=asked@v1.0", "op.rows=1", "name=few")
    versions = data("op=versions", "dataset=asked")
    told = [(each["ability"], each["method"]) for each in versions["versions"]]
    assert told == [("对话质量", method) for method in (["judge"], ["bleu"], ["bleu", "label"])]
    assert "对话质量" in versions["out"] and "bleu, label" in versions["out"]
    listed = data("op=list", "kind=eval")
    known = {each["name"]: (each["ability"], each["method"]) for each in listed["datasets"]}
    assert known == {"asked": told[2], "few": told[0], "sales_eval": ("", [])} and "对话质量" in listed["out"]
    for ref, label in (("asked@v1.0", "v1.0"), ("asked", "v1.2"), ("few", "v1.0"), ("sales_eval", None)):
        version = version_of(open_dataset(ref))
        assert (version.label if version else None) == label
    write(path, rows[:3])
    edited, elsewhere = (version_of(open_dataset(ref)) for ref in ("asked", str(write(here / "x" / "asked.jsonl", rows))))
    assert edited is not None and edited.method == ("bleu", "label") and elsewhere is None


def test_use_moves_current_and_the_file_and_loses_nothing(data: Callable[..., Any], here: Path) -> None:
    path = write(here / "datasets" / "mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    write(path, ROWS[:10])
    data("op=version", "dataset=mine")
    data("op=use", "dataset=mine@v1.0")
    assert read_path(path, Read()).rows == ROWS
    assert [each["current"] for each in data("op=versions", "dataset=mine")["versions"]] == [True, False]
    write(path, ROWS[:5])
    said = data("op=use", "dataset=mine@v1.1", code=2)
    assert "holds rows that no version has" in said and "op=version dataset=mine" in said
    assert read_path(path, Read()).rows == ROWS[:5]
    data("op=use", "dataset=mine@v1.1", "op.keep_file=true")
    assert data("op=diff", "dataset=mine")["removed"] == 5


def test_two_people_with_one_label_are_not_both_right(data: Callable[..., Any], here: Path) -> None:
    path = write(here / "datasets" / "mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    facts = {"kind": "sft", "description": "", "rows": 20, "raw": "0" * 64, "canonical": "1" * 64, "source": ""}
    outcome: list[str] = []
    together = threading.Barrier(2)

    def add() -> None:
        store = connect()
        together.wait()
        try:
            outcome.append(datasets.add(store, "mine", "v9.0", path, facts, ()).label)
        except Exception as error:
            outcome.append(str(error))

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome)[-1] == "v9.0" and "has a version 'v9.0'" in sorted(outcome)[0], outcome
    assert [each["label"] for each in data("op=versions", "dataset=mine")["versions"]] == ["v1.0", "v9.0"]


def test_edit_remove_restore(data: Callable[..., Any], here: Path) -> None:
    write(here / "datasets" / "mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    data("op=edit", "dataset=mine", "name=better", "op.description=更好")
    assert (here / "datasets" / "better.jsonl").is_file() and not (here / "datasets" / "mine.jsonl").exists()
    old = data("op=versions", "dataset=mine")
    assert old["name"] == "better" and "the dataset 'mine' is called 'better' now" in old["err"]
    said = data("op=remove", "dataset=better", code=2)
    assert "asks before it removes" in said and "op.yes=true" in said
    gone = data("op=remove", "dataset=better", "op.yes=true")
    assert gone["kept"].startswith("1 versions")
    assert "better" not in {each["name"] for each in data("op=list")["datasets"]}
    assert (here / "datasets" / "better.jsonl").is_file()
    assert "was removed from the list" in data("op=export", "dataset=better", "output=x.jsonl", code=2)
    data("op=restore", "dataset=better")
    assert "better" in {each["name"] for each in data("op=list")["datasets"]}
    assert "there is nothing to restore" in data("op=restore", "dataset=better", code=2)


def test_split_sample_and_mix(data: Callable[..., Any], here: Path) -> None:
    split = data("op=split", "dataset=sales_sft", "op.validation=0.1")
    parts = [read_path(Path(path), Read()) for path in split["paths"].values()]
    whole = read_path(shipped() / "sales_sft.jsonl", Read())
    assert sorted(map(str, parts[0].rows + parts[1].rows)) == sorted(map(str, whole.rows)) and 20 < len(parts[1].rows) < 90
    first = data("op=sample", "dataset=sales_sft", "op.rows=7", "name=seven")
    again = data("op=sample", "dataset=sales_sft", "op.rows=7", "name=seven")
    assert first["lines"] == again["lines"] and again["written"] == "seven@v1.0"
    assert data("op=sample", "dataset=sales_sft", "op.rows=7", "name=seven", "seed=1")["written"] == "seven@v1.1"
    mixed = data("op=mix", "op.datasets=[sales_sft,math_sft]", "op.weights=[0.7,0.3]", "op.rows=100", "name=both")
    rows = read_path(Path(mixed["path"]), Read()).rows
    assert mixed["counts"] == [70, 30]
    (origin,) = {row["origin"] for row in rows if row["origin"].startswith("math_sft@")}
    assert sum(row["origin"] == origin for row in rows) == 30
    exported = data("op=export", f"dataset={origin}", "output=parent.jsonl")
    assert exported["digests"]["canonical"].startswith(origin.partition("@")[2])
    assert "no dataset 'math_sft' is registered" in data("op=preview", "dataset=math_sft@123456abcdef", code=2)
    said = data("op=mix", "op.datasets=[sales_sft,math_sft]", "op.weights=[3,1]", "name=both", code=2)
    assert "write op.weights=[0.75,0.25]" in said
    assert "mix datasets of one kind" in data("op=mix", "op.datasets=[sales_sft,sales_dpo]", "name=both", code=2)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("name", ["sales_sft", "sales_eval", "sales_dpo", "chats"])
def test_what_was_exported_comes_back_as_it_was(data: Callable[..., Any], here: Path, name: str, ending: str) -> None:
    turns = [{"role": "user", "content": "天气?"}, {"role": "assistant", "content": '"晴", 是\n的'}]
    write(here / "datasets" / "chats.jsonl", [{"messages": turns}, {"messages": turns, "tools": [{"name": "x"}], "id": 3}])
    exported = data("op=export", f"dataset={name}", f"output=out/again.{ending}")
    added = data("op=add", f"dataset=out/again.{ending}")
    assert added["digests"]["canonical"] == exported["digests"]["canonical"]
    assert "is there already" in data("op=export", f"dataset={name}", f"output=out/again.{ending}", code=2)


@pytest.mark.parametrize("form", ["alpaca", "sharegpt"])
def test_other_peoples_forms_come_back_as_the_same_rows(data: Callable[..., Any], here: Path, form: str) -> None:
    exported = data("op=export", "dataset=sales_sft", f"output={form}.json", f"op.form={form}")
    assert data("op=add", f"dataset={form}.json")["digests"]["canonical"] == exported["digests"]["canonical"]
    said = data("op=export", "dataset=sales_dpo", f"output=other_{form}.json", f"op.form={form}", code=2)
    assert "rows of kind dpo are no conversations" in said


def test_a_training_says_which_version_it_reads(data: Callable[..., Any], here: Path) -> None:
    path = write(here / "datasets" / "mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    words = [*SMOKE[:1], "trainer.max_steps=1", "trainer.save_steps=1", "trainer.eval_steps=1", "samples.count=0"]
    words += ["validation=null", "register_as=null"]
    ok(train(here, *words, "dataset=mine", "run_name=same"))
    write(path, [*ROWS[:-2], {"prompt": "x", "response": "y"}])
    done = train(here, *words, "dataset=mine", "run_name=changed")
    assert done.returncode == 0 and "mine differs from v1.0 in 2 rows; the file is used (digest " in done.stderr
    ok(train(here, *words, "dataset=mine@v1.0", "run_name=pinned"))
    tags = {name: run_of(client(here), name).data.tags for name in ("same", "changed", "pinned")}
    assert tags["same"]["data.train.version"] == tags["pinned"]["data.train.version"] == "v1.0"
    assert tags["same"]["data.train.digest.canonical"] == tags["pinned"]["data.train.digest.canonical"]
    assert tags["changed"]["data.train.version"] == str(path)
    removed = data("op=remove", "dataset=mine", "op.yes=true")
    assert set(removed["runs"]) == {"same", "pinned"}


def test_a_data_run_and_a_version_are_in_the_record(data: Callable[..., Any], here: Path) -> None:
    data("op=sample", "dataset=sales_sft", "op.rows=5", "run_name=drawn")
    store: MlflowClient = client(here)
    run = run_of(store, "drawn")
    assert run.data.tags["stage"] == "data" and run.data.params["choice.op"] == "sample" and run.data.params["op.rows"] == "5"
    version = run_of(store, "sales_sft_sample@v1.0")
    assert version.info.status == "FINISHED" and version.data.metrics["rows"] == 5
    (parent,) = version.inputs.dataset_inputs
    assert parent.dataset.name == "sales_sft"


def test_runs_name_what_they_read(data: Callable[..., Any], here: Path) -> None:
    write(here / "datasets" / "mine.jsonl", ROWS)
    digests = data("op=add", "dataset=mine")["digests"]
    for op in ("validate", "stats", "dedup_exact", "sample"):
        data(f"op={op}", "dataset=mine", f"run_name={op}", *(["op.rows=5"] if op == "sample" else []))
        run = run_of(client(here), op)
        (given,) = run.inputs.dataset_inputs
        assert given.dataset.name == "mine" and run.data.tags["data.version"] == "v1.0"
        assert run.data.tags["data.digest.canonical"] == digests["canonical"]


def test_the_seed_of_a_draw_may_be_given_with_the_operation(data: Callable[..., Any], here: Path) -> None:
    drawn = [data("op=sample", "dataset=sales_sft", "op.rows=5", each, f"name={name}")["lines"]
             for name, each in (("a", "op.seed=3"), ("b", "seed=3"), ("c", "op.seed=4"))]  # fmt: skip
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_drawn_name_that_is_taken_is_drawn_again(
    data: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(sys.modules["mlops_llm.entry.launch"], "token_hex", lambda _: next(names))
    data("op=sample", "dataset=sales_sft")
    shutil.rmtree(here / "outputs")  # only the record knows that the name is taken
    data("op=sample", "dataset=sales_sft")
    assert {each.name for each in (here / "outputs").iterdir()} == {"data-bbbb"}


def test_mistakes(data: Callable[..., Any], here: Path) -> None:
    assert "no op was chosen; give op= one of: add," in data(code=2)
    assert "unknown op 'lst' (did you mean list?)" in data("op=lst", code=2)
    assert "names no dataset" in data("op=add", code=2)
    assert "there is no such dataset (did you mean sales_sft?)" in data("op=split", "dataset=sales_sf", code=2)
    assert "no dataset 'sales_sft' is registered" in data("op=export", "dataset=sales_sft@v1.0", "output=x.csv", code=2)
    write(here / "datasets" / "mine.jsonl", ROWS)
    data("op=add", "dataset=mine")
    assert "'mine' has no version 'v7'; it has: v1.0" in data("op=export", "dataset=mine@v7", "output=x.csv", code=2)
    assert "the ending '.doc' names no form" in data("op=export", "dataset=mine", "output=x.doc", code=2)
    assert "Key 'labell' not in 'Version' (did you mean label?)" in data("op=version", "op.labell=x", code=2)
