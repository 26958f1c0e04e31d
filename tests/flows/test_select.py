"""A checkpoint of a training is selected by a command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlops_llm.models import load
from mlops_llm.models.adapter import write_origin
from mlops_llm.models.ref import resolve
from mlops_llm.surgery.selection.freeing import beneath_adapters, freed
from mlops_llm.tracking.store import Store, local_path
from tests import miniatures
from tests.commands import SMOKE, ok, train
from tests.flows.test_lineage import made
from tests.record import checkpoints_of, client, run_of
from tests.surgeries import command


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder with a training of its own, whose checkpoints may be deleted."""
    folder = tmp_path_factory.mktemp("own")
    ok(train(folder, *SMOKE, *SHORT, "run_name=mine", "register_as=null"))
    return folder


SHORT = ["trainer.max_steps=6", "trainer.save_steps=2", "trainer.eval_steps=2", "trainer.logging_steps=2", "samples.count=0"]
SCORES = ["op.by=[eval/loss,score/perplexity]", "op.evaluate=true", "dataset=sales_eval", "limit=6", "metric=[perplexity]"]


def test_what_is_missing_is_evaluated_once_then_chosen_with_reasons_and_registered(own):
    out = command(own, "op=select", "run=mine", *SCORES, "run_name=chosen", "name=best_of_mine")
    result = json.loads((own / "outputs/chosen/result.json").read_text("utf-8"))
    store = client(own)
    models = checkpoints_of(store, run_of(store, "mine"))
    whole = {name for name in models if name.startswith("checkpoint-")}
    losses = {
        name: next(m.value for m in models[name].metrics if m.key == "eval/loss") for name in whole if models[name].metrics
    }
    assert len(whole) == 3 and all(any(m.key == "score/perplexity" for m in models[name].metrics) for name in whole)
    assert (
        result["ref"].rpartition("/")[2] in losses and "least sum of ranks in eval/loss, score/perplexity" in result["reasons"]
    )
    version = store.get_model_version_by_alias("best_of_mine", "challenger")
    assert version.source == f"models:/{result['model']}" and "rank" in version.description
    assert "train/loss" in out and "score/perplexity" in out and "to free" in out
    again = command(own, "op=select", "run=mine", *SCORES, "run_name=again")
    assert (
        "evaluating" not in again and json.loads((own / "outputs/again/result.json").read_text("utf-8"))["ref"] == result["ref"]
    )
    assert json.loads((own / "outputs/again/result.json").read_text("utf-8"))["deleted"] == []
    command(own, "op=select", "run=mine", "op.rule=earliest", "op.by=[score/perplexity]", "run_name=early")
    early = json.loads((own / "outputs/early/result.json").read_text("utf-8"))
    limits = [each for each in early["reasons"] if "missed by 6 samples" in each]
    assert "perplexity" in early["reasons"][0] and len(limits) == ("the earliest" in early["reasons"][0])


def test_what_was_not_judged_is_not_deleted_and_scores_of_other_rows_do_not_count(own):
    words = ["metric=[bleu]", "sampling.max_new_tokens=4", "publish.rows=0", "overlap.check=false"]
    command(own, "model=runs:/mine/checkpoint-2", "dataset=sales_eval", "limit=3", *words, "run_name=three", stage="eval")
    both = ["op.by=[eval/loss,score/bleu]", "op.avoid_overfit=false"]
    out = command(own, "op=select", "run=mine", *both, "run_name=alone")
    found = json.loads((own / "outputs/alone/result.json").read_text("utf-8"))
    assert found["ref"].endswith("checkpoint-2") and found["left_out"]["checkpoint-6"] == "has no score/bleu"
    assert "op.delete_others=true" not in out
    said = command(own, "op=select", "run=mine", *both, "op.delete_others=true", code=2)
    assert "op.delete_others: would delete what was not judged: checkpoint-4 has no score/bleu; checkpoint-6" in said
    command(own, "model=runs:/mine/checkpoint-4", "dataset=sales_eval", "limit=5", *words, "run_name=five", stage="eval")
    command(own, "op=select", "run=mine", *both, "run_name=apart")
    found = json.loads((own / "outputs/apart/result.json").read_text("utf-8"))
    assert sum(each == "has no score/bleu" for each in found["left_out"].values()) == 2, "three rows beside five say nothing"


def test_others_go_only_when_told_and_nothing_goes_that_an_alias_was_made_of(own):
    store = client(own)
    models = checkpoints_of(store, run_of(store, "mine"))
    words = ["op=average", "models=[runs:/mine/checkpoint-2]"]
    command(own, *words, "run_name=avg", "name=averaged", "output=averaged")
    command(own, "op=select", "run=mine", "op.rule=latest", "op.avoid_overfit=false", "run_name=plan")
    plan = json.loads((own / "outputs/plan/result.json").read_text("utf-8"))
    assert plan["ref"] == "runs:/mine/checkpoint-6"
    stay = {name: why.partition("@")[0] for name, why in plan["stay"].items()}
    assert stay == {"checkpoint-2": "averaged"}
    assert plan["may_go"] == ["checkpoint-4"] and plan["deleted"] == [] and (own / "outputs/mine/checkpoint-4").is_dir()
    words = ["op=select", "run=mine", "op.rule=latest", "op.avoid_overfit=false"]
    assert "freed" in command(own, *words, "run_name=done", "op.delete_others=true")
    done = json.loads((own / "outputs/done/result.json").read_text("utf-8"))
    assert done["deleted"] == plan["may_go"] and done["free_bytes"] == plan["free_bytes"] > 0
    assert sorted(each.name for each in (own / "outputs/mine").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]
    now = checkpoints_of(store, run_of(store, "mine"))["checkpoint-4"]
    assert now.tags["checkpoint.files"] == "removed" and now.model_id == models["checkpoint-4"].model_id
    assert {metric.key for metric in now.metrics} >= {"eval/loss"}
    assert "removed" in command(own, "op=merge_slerp", "models=[runs:/mine/checkpoint-4,tiny]", code=2)
    command(own, *words, "run_name=after")
    after = json.loads((own / "outputs/after/result.json").read_text("utf-8"))
    assert after["left_out"] == {"checkpoint-4": "its files were removed"} and after["may_go"] == []


FEW = "op.rule: tests by 5 samples, of which no difference is significant, however large it is; evaluate on 6 rows or more"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["run=nobody"], "no run is called 'nobody'"),
        (["run=mine", "op.by=[eval/los]"], "op.by: no checkpoint has 'eval/los' (did you mean eval/loss?)"),
        (["run=mine", "op.rule=earliest"], "op.by: eval/loss is not known sample by sample"),
        (["run=mine", "op.evaluate=true", "dataset=sales_eval"], "op.evaluate: evaluates, and eval/loss is no score"),
        (["run=mine", "op.rule=earliest", *SCORES[1:], "op.by=[score/perplexity]", "limit=5"], FEW),
    ],
)
def test_bad_requests_are_one_line(own, words, error):
    said = command(own, "op=select", *words, code=2)
    assert error in said and len(said.splitlines()) == 1


def test_content_with_several_names_is_free_only_without_the_last(tmp_path):
    for name in ("record", "output", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "record" / "model").write_bytes(b"x" * 1000)
    os.link(tmp_path / "record" / "model", tmp_path / "output" / "model")
    (tmp_path / "output" / "optimizer").write_bytes(b"y" * 500)
    assert freed([tmp_path / "record"]) == 0 and freed([tmp_path / "output"]) == 500
    assert freed([tmp_path / "record", tmp_path / "output"]) == 1500
    os.link(tmp_path / "record" / "model", tmp_path / "elsewhere" / "model")
    assert freed([tmp_path / "record", tmp_path / "output"]) == 500


def test_what_an_adapter_lies_on_stays(own, monkeypatch):
    monkeypatch.chdir(own)
    store = Store(client(own), f"sqlite:///{own / 'mlflow.db'}")
    model = checkpoints_of(store.client, run_of(store.client, "mine"))["checkpoint-6"].model_id
    run, adapter = made(store, "on_six")
    store.client.log_model_params(adapter, {"peft": "lora"})  # as a training says of its checkpoints
    place = local_path(store.client.get_logged_model(adapter).artifact_location)
    miniatures.adapter(place, own / "outputs/mine/checkpoint-6", origin=False)
    write_origin(place, load.inspect(resolve("runs:/mine/checkpoint-6"), load.ModelLoad()))
    assert beneath_adapters(store) == {model: f"the adapter checkpoint-4 of {run} lies on it"}
