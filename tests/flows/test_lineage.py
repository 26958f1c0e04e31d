"""What the record tells of a model's past; its runs are written as trainings write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlops_llm.data.ref import open_dataset
from mlops_llm.eval import search
from mlops_llm.eval.overlap import Overlap
from mlops_llm.eval.questions import Question
from mlops_llm.eval.search import check
from mlops_llm.models.ref import Place
from mlops_llm.record import Checkpoint, DatasetInput
from mlops_llm.tracking import datasets
from mlops_llm.tracking.lineage import Lineage, trace
from mlops_llm.tracking.models import entered
from mlops_llm.tracking.run import MlflowRun, Opening
from mlops_llm.tracking.store import Store
from tests.flows.conftest import PRISTINE, copy

WEIGHTS = "ab" * 32


@pytest.fixture(scope="module")
def store(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A record of its own: a copy, since to make one takes seconds."""
    folder = tmp_path_factory.mktemp("record")
    copy(trained / PRISTINE, folder / "mlflow.db")
    address = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", address)  # where MLflow's registry looks for what is registered
        yield Store(MlflowClient(address), address)


def rows(name: str, context: str = "training", count: int = 9, **more: Any) -> DatasetInput:
    digests = {"raw": f"raw of {name}", "canonical": f"{context} {name}", "seen": ""}
    return DatasetInput(name, "v1.0", f"/data/{name}.jsonl", context, count, more.get("digests", digests))


def made(
    store: Store, name: str, *inputs: DatasetInput, base: str = "", params: dict[str, str] | None = None, **tags: str
) -> tuple[str, str]:
    """A run and its checkpoint: ids."""
    experiment = store.experiment("lineage")
    run = store.client.create_run(experiment, run_name=name).info.run_id
    record = MlflowRun(store, run, experiment, Opening("train", "lineage", name, Path(name)))
    record.params({"holdout": 0.1, "validation": None, "best.metric": None, **(params or {})})
    for each in inputs:
        record.input(each)
    origin = {"base": base} if base else {}
    of_model = {key: tags.pop(key) for key in ("parents", "parent", "digest.weights") if key in tags}
    record.tags({**origin, **tags})
    model = store.client.create_logged_model(experiment, "checkpoint-4", source_run_id=run, tags=of_model).model_id
    store.client.finalize_logged_model(model, "READY")
    return run, model


def on(origin: tuple[str, str]) -> dict[str, str]:
    return {"base": "models:/x@champion", "base.run": origin[0], "base.checkpoint": origin[1]}


def traced(store: Store, origin: tuple[str, str]) -> Lineage:
    return trace(store, Place("ref", Path(), origin[1], origin[0]))


def names(lineage: Lineage, context: str = "training") -> list[str]:
    return [each.name for each in lineage.datasets if each.context == context]


def test_every_training_of_a_chain_tells_its_rows(store: Store) -> None:
    sft = made(store, "sft", rows("sales_sft"), rows("sales_sft", "validation", 3), base="tiny")
    dpo = made(store, "dpo", rows("sales_dpo"), **on(sft))
    ppo = made(store, "ppo", rows("ppo_general"), **on(dpo), params={"read.encoding": "gb18030", "read.columns.prompt": "q"})
    found = traced(store, ppo)
    assert names(found) == ["ppo_general", "sales_dpo", "sales_sft"] and names(found, "validation") == ["sales_sft"]
    assert (found.runs, found.bases, found.unknown) == (("ppo", "dpo", "sft"), ("tiny",), ())
    first = found.datasets[0]
    assert (first.version, first.source, first.rows, first.run_id) == ("v1.0", "/data/ppo_general.jsonl", 9, ppo[0])
    assert first.read == {"encoding": "gb18030", "columns.prompt": "q"} and first.holdout == 0.1
    assert first.digests["canonical"] == "training ppo_general"


def test_all_parents_of_a_merge_are_followed_each_once_and_a_circle_ends(store: Store) -> None:
    one = made(store, "one", rows("a"), base="tiny")
    two = made(store, "two", rows("b"), base="smollm2")
    parents = [one[1], f"models:/{two[1]}", "runs:/one/checkpoint-4", "runs:/one/last", f"models:/m-{'0' * 32}", "Qwen/Qwen2.5"]
    merge = made(store, "merge", parents=json.dumps(parents))
    store.client.set_logged_model_tags(two[1], {"parents": json.dumps([f"models:/{merge[1]}"])})
    found = traced(store, made(store, "after", rows("c"), **on(merge)))
    assert sorted(names(found)) == ["a", "b", "c"] and found.bases == ("tiny",)
    assert found.runs == ("after", "merge", "one", "two")
    told = " | ".join(found.unknown)
    assert all(each in told for each in ("runs:/one/last", "m-000000", "Qwen/Qwen2.5", "smollm2")) and len(found.unknown) == 4


def test_parents_may_stand_in_the_run_and_must_be_a_list(store: Store) -> None:
    one = made(store, "again", rows("a"), base="tiny")
    merge = made(store, "in-run")
    store.client.set_tag(merge[0], "parents", json.dumps([one[1]]))
    assert names(traced(store, merge)) == ["a"] and not traced(store, merge).unknown
    for bad in ("tiny", '"tiny"', "[1]"):
        found = traced(store, made(store, "bad", parents=bad))
        assert len(found.unknown) == 1 and "is no list of models" in found.unknown[0]


def test_what_is_deleted_is_still_told_and_what_is_gone_is_said(store: Store) -> None:
    first = made(store, "first", rows("a"), base="tiny")
    second = made(store, "second", rows("b"), **on(first), parent=first[1])
    third = made(store, "third", rows("c"), **on(second))
    store.client.delete_run(second[0])
    store.client.delete_logged_model(first[1])
    found = traced(store, third)
    assert names(found) == ["c", "b", "a"] and found.runs == ("third", "second (deleted)", "first") and not found.unknown
    store.client._tracking_client.store._hard_delete_run(second[0])  # as `mlflow gc` does
    found = traced(store, third)
    assert names(found) == ["c"] and any(f"run {second[0]}" in each and "is gone" in each for each in found.unknown)


def test_a_run_that_names_no_start_leaves_a_gap(store: Store) -> None:
    found = traced(store, made(store, "bare"))
    assert found.datasets == () and found.unknown == ("run bare does not say what it started from",)


def test_a_folder_with_the_weights_of_a_checkpoint_is_that_checkpoint(store: Store) -> None:
    made(store, "known", rows("a"), base="tiny", **{"digest.weights": WEIGHTS})
    made(store, "same weights later", rows("c"), base="tiny", **{"digest.weights": WEIGHTS})
    copied = made(store, "copied", rows("b"), base="/models/copy", **{"digest.base": WEIGHTS})
    assert names(traced(store, copied)) == ["b", "a"]
    assert names(trace(store, Place("/models/copy", Path()), WEIGHTS)) == ["a"]
    other = trace(store, Place("/models/other", Path()), "cd" * 32)
    assert other.datasets == () and other.unknown == (
        "/models/other comes from elsewhere: what it was trained on is not recorded",
    )


def test_what_an_evaluation_entered_is_followed_to_where_it_came_from(store: Store) -> None:
    known = made(store, "before", rows("a"), base="tiny", **{"digest.weights": "cd" * 32})
    experiment = store.experiment("lineage")
    folder = Checkpoint("_models_copy", 0, Path("/models/copy"), {"digest.weights": "cd" * 32, "ref": "/models/copy"})
    copy, base, other = (
        entered(store, experiment, each)
        for each in (
            folder,
            Checkpoint("tiny", 0, Path("/tiny"), {"digest.weights": "ef" * 32, "ref": "tiny"}),
            Checkpoint("Qwen_Qwen2.5-0.5B", 0, Path("/q"), {"digest.weights": "01" * 32, "ref": "Qwen/Qwen2.5-0.5B"}),
        )
    )
    assert trace(store, Place("models:/m", Path(), copy)).runs == traced(store, known).runs == ("before",)
    assert trace(store, Place("models:/m", Path(), base)) == Lineage((), (), ("tiny",))
    assert trace(store, Place("models:/m", Path(), other)).unknown == (
        "Qwen/Qwen2.5-0.5B comes from elsewhere: what it was trained on is not recorded",
    )


@pytest.mark.parametrize("ref", ["models:/m", "/models/folder"])
def test_a_record_that_is_away_leaves_the_answer_open(ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise MlflowException("request failed with status 503")

    monkeypatch.setattr(search, "record", lambda: Store(Away(), "http://127.0.0.1:9"))
    place = Place(ref, Path(), "m-1" if ref == "models:/m" else "")
    found = search.of_model([[Question([{"role": "user", "content": "一"}], None, ())]], place, WEIGHTS, Overlap())
    assert found
    (got,) = found
    assert got.seen == [None] and got.share is None and "cannot be reached" in got.unknown[0]


@pytest.mark.parametrize(("ref", "known"), [("tiny", True), ("smollm2", False), ("Qwen/Qwen2.5-0.5B", False)])
def test_without_a_record_only_the_embedded_model_is_known(ref: str, known: bool) -> None:
    found = trace(None, Place(ref, Path()))
    assert (found.bases == (ref,)) == known and bool(found.unknown) != known


@pytest.mark.parametrize(
    ("params", "holdout", "contexts"),
    [
        ({}, 0.1, ["training", "validation"]),
        ({"holdout": "0.25"}, 0.25, ["training", "validation"]),
        ({"validation": "held.jsonl"}, 0.0, ["training", "validation"]),
        ({"best.metric": "score/bleu"}, 0.1, ["training", "validation", "evaluation"]),
        ({"best.metric": "eval/loss"}, 0.1, ["training", "validation"]),
    ],
)
def test_what_the_rows_were_for(store: Store, params: dict[str, str], holdout: float, contexts: list[str]) -> None:
    parts = [rows("a"), rows("a", "validation"), rows("asked[4]", "evaluation", 4)]
    found = traced(store, made(store, "parts", *parts, base="tiny", params=params))
    assert [each.context for each in found.datasets] == contexts
    assert [each.holdout for each in found.datasets] == [holdout, holdout, 0.0][: len(contexts)]


def test_teachers_and_reward_models_are_named_and_not_followed(store: Store) -> None:
    distilled = made(store, "distilled", rows("a"), base="tiny", teacher="models:/big@champion")
    rewarded = {"digest.reward.model": "x"}
    found = traced(
        store, made(store, "grpo", rows("b"), **on(distilled), **rewarded, params={"reward.model.ref": "models:/rm/1"})
    )
    assert found.influences == ("reward model models:/rm/1 (run grpo)", "teacher models:/big@champion (run distilled)")
    assert not found.unknown and sorted(names(found)) == ["a", "b"]


def test_rows_of_a_version_are_checked_though_the_file_is_gone(store: Store, jsonl: Callable[..., Path]) -> None:
    file = jsonl([{"prompt": f"第 {place} 个问题", "response": "答"} for place in range(30)], "faq.jsonl")
    source = open_dataset(str(file))
    facts = {"kind": "sft", "description": "", "rows": 30, "source": source.raw, **source.digests}
    datasets.add(store, "faq", "v1.0", file, facts, [])
    digests = {"raw": source.raw, "canonical": source.canonical, "seen": ""}
    used = made(store, "on-faq", rows("faq", count=30, digests=digests), base="tiny", params={"holdout": "0"})
    reordered = {**digests, "raw": "of another form of the same rows"}
    again = made(store, "on-faq-too", rows("faq", digests=reordered), base="tiny", params={"holdout": "0"})
    lost = made(
        store, "on-lost", rows("faq", digests={**reordered, "canonical": "others"}), base="tiny", params={"holdout": "0"}
    )
    file.unlink()
    asked = [Question([{"role": "user", "content": text}], None, ()) for text in ("第 7 个问题", "第 30 个问题")]
    for run in (used, again):
        (got,) = check([asked], traced(store, run), Overlap(), store)
        assert got.seen == [True, False] and got.datasets == ["faq@v1.0", "corpus of tiny"]
    (got,) = check([asked], traced(store, lost), Overlap(), store)
    assert got.seen == [None, None] and got.unknown[0].startswith("faq of run on-lost: its rows cannot be checked")
