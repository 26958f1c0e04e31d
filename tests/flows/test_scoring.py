"""Answers that are scored while training, as real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlops_llm.data.ref import open_dataset
from mlops_llm.train.checkpoints import COMPLETE
from tests.commands import SMOKE, ok, train
from tests.record import artifacts_of, checkpoints_of, client, run_of, steps_of

SCORES = ["score/bleu", "score/rouge_1", "score/rouge_2", "score/rouge_l"]


@pytest.mark.slow
def test_scores_decide_are_recorded_go_on_after_a_kill_and_change_no_weight(trained: Path) -> None:
    words = ["evaluate.every=5", "evaluate.dataset=sales_eval", "evaluate.samples=3", "evaluate.max_new_tokens=8"]
    words += ["best.metric=score/rouge_l", "register_as=null"]
    said = ok(train(trained, *SMOKE, "seed=7", *words, "run_name=scored"))
    assert "answers scored: 3 to sales_eval, every 5 steps (bleu, rouge)" in said

    store = client(trained)
    run, first = run_of(store, "scored"), run_of(store, "first")
    assert run.data.tags["digest.weights"] == first.data.tags["digest.weights"]
    assert run.data.metrics["eval/loss"] == first.data.metrics["eval/loss"]
    assert run.data.tags["best.reason"].startswith("score/rouge_l") and "highest of 2" in run.data.tags["best.reason"]
    rows = open_dataset("sales_eval").rows[:3]
    before = {key: curve(store, run, key) for key in SCORES}
    for key in SCORES:
        assert [*before[key]] == [0, 5, 10, 15, 20]
    for name, model in checkpoints_of(store, run).items():
        found = {metric.key: metric for metric in model.metrics}
        assert {found[key].dataset_name for key in SCORES} == {"sales_eval[3]"}
        assert found["eval/loss"].dataset_name == "sales_sft_val"
        assert found["score/bleu"].value == before["score/bleu"][int(name.rpartition("-")[2])]
    table = json.loads(Path(store.download_artifacts(run.info.run_id, "scores/step-00005.json")).read_text("utf-8"))
    assert table["columns"] == ["prompt", "answer", "reference", "bleu", "rouge_1", "rouge_2", "rouge_l"]
    assert [line[0] for line in table["data"]] == [row["prompt"] for row in rows]
    assert sum(line[6] for line in table["data"]) / 3 == pytest.approx(before["score/rouge_l"][5], abs=1e-4)
    tables = {path for path in artifacts_of(store, run) if path.startswith("scores/")}
    assert tables == {f"scores/step-{step:05d}.json" for step in (0, 5, 10, 15, 20)}

    store.set_terminated(run.info.run_id, "KILLED")  # as if it had died while the last checkpoint was written
    (trained / "outputs/scored/checkpoint-20" / COMPLETE).unlink()
    assert "resume verified" in ok(train(trained, "resume=scored"))
    again = run_of(store, "scored")
    assert {key: curve(store, again, key) for key in SCORES} == before
    assert all(steps_of(store, again, key) == [0, 5, 10, 15, 20] for key in SCORES)
    assert {each["path"] for each in json.loads(again.data.tags["mlflow.loggedArtifacts"])} == {*tables, "samples.json"}
    assert again.data.tags["digest.weights"] == first.data.tags["digest.weights"]
    assert again.data.tags["best.reason"] == run.data.tags["best.reason"]


def curve(store, run, key: str) -> dict[int, float]:
    return {metric.step: metric.value for metric in store.get_metric_history(run.info.run_id, key)}
