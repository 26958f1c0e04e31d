"""Models set side by side by one command: what is recorded of them, and that nothing is asked twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlops_llm import component
from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.eval.config import PACKAGES, Eval
from mlops_llm.eval.ops.compare import Compare
from mlops_llm.eval.several import plans
from mlops_llm.eval.speed import measured
from mlops_llm.inference.engine import Sampling
from mlops_llm.models import tiny
from tests.record import artifacts_of, client, run_of

FEW = ["dataset=sales_eval", "limit=8", "sampling.max_new_tokens=16", "metric=[bleu,rouge,exact_match,latency]"]


def broken(folder: Path) -> Path:
    """A copy of `tiny` with noise in its weights."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny.folder(), folder)
    (file,) = folder.glob("*.safetensors")
    random = torch.Generator().manual_seed(0)
    weights = {name: each + 0.3 * torch.randn(each.shape, generator=random) for name, each in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    return folder


@pytest.mark.slow
def test_two_models_are_compared_in_one_run_and_asked_once(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(here / "cache"))
    models = f"models=[tiny,{broken(here / 'broken')}]"
    assert launch(STAGE, ["op=compare", models, *FEW, "run_name=both", "op.lang=en"]) == 0
    said = capfd.readouterr().out
    result = json.loads((here / "outputs/both/result.json").read_text("utf-8"))
    store = client(here)
    run = store.get_run(run_of(store, "both").info.run_id)
    assert run.data.tags["models"] == f"tiny, {here / 'broken'}"
    assert len(run.inputs.model_inputs) == 2 and [each.dataset.name for each in run.inputs.dataset_inputs] == ["sales_eval[8]"]
    for number, ref in enumerate(["tiny", str(here / "broken")], 1):
        for name, value in result["scores"][ref].items():
            assert run.data.metrics[f"compare/{number}/{name}"] == pytest.approx(value)
    assert {"comparison.html", "comparison.json", "comparison_samples.json"} <= artifacts_of(store, run)
    found = json.loads(Path(store.download_artifacts(run.info.run_id, "comparison.json")).read_text("utf-8"))
    assert found["comparisons"] == 5 and found["conclusion"]["en"] == result["conclusion"] and len(found["samples"]) == 8
    assert all(one in said for one in result["conclusion"]) and "tokens/s" in said
    assert all(each["seconds_a_sample"] and each["bytes"] for each in found["models"])
    (bleu,) = (each for each in found["scores"] if each["name"] == "bleu")
    assert bleu["values"][0]["value"] > bleu["values"][1]["value"] and bleu["pairs"][0]["test"].startswith("exchanged answers")

    assert launch(STAGE, ["op=compare", models, *FEW, "run_name=again"]) == 0
    assert run.data.metrics["compare/2/perf/seconds_a_sample"] == found["models"][1]["seconds_a_sample"]
    again = json.loads(Path(store.download_artifacts(run_of(store, "again").info.run_id, "comparison.json")).read_text("utf-8"))
    latency = [{each["name"]: each["values"] for each in one["scores"]}["latency_mean"] for one in (found, again)]
    assert latency[0][0]["value"] > 0 and latency[1] == [None, None]
    assert [each for each in again["scores"] if "pairs" in each] == [each for each in found["scores"] if "pairs" in each]
    assert [each["seconds_a_sample"] for each in again["models"]] == [each["seconds_a_sample"] for each in found["models"]]
    said = capfd.readouterr().out
    assert "op.measure=true measures each by itself" in again["unequal"] and "not comparable" in said
    _evaluations(store, run, found)
    assert f"#/compare-runs?runs=%5B%22{run_of(store, 'both-1').info.run_id}%22%2C%22" in said
    assert [each["evaluation"] for each in again["models"]] == ["both-1", "both-2"]

    words = ["model=tiny", *FEW, "limit=6", "run_name=six", "sampling.batch_size=3", "cache=refresh"]
    assert launch(STAGE, words) == 0
    assert launch(STAGE, ["op=compare", "op.runs=[both-1,both-2]", "run_name=recorded"]) == 0
    recorded = json.loads(
        Path(store.download_artifacts(run_of(store, "recorded").info.run_id, "comparison.json")).read_text("utf-8")
    )
    tested = [[each for each in one["scores"] if "pairs" in each] for one in (found, recorded)]
    assert tested[0] == tested[1], "answers of the record are compared as answers that were just given"
    assert [each["bytes"] for each in recorded["models"]] == [each["bytes"] for each in found["models"]]
    capfd.readouterr()
    assert launch(STAGE, ["op=compare", "op.runs=[six,both-2]", "dataset=sales_eval"]) == 2
    assert "dataset: is given beside evaluations, which tell it" in capfd.readouterr().err
    assert launch(STAGE, ["op=compare", "op.runs=[six,both-2]"]) == 2
    assert (
        "op.runs: are of different rows (six 6, both-2 8; 6 in common); op.common=true compares those" in capfd.readouterr().err
    )
    assert launch(STAGE, ["op=compare", "op.runs=[six,both-2]", "op.common=true", "run_name=common"]) == 0
    common = json.loads(
        Path(store.download_artifacts(run_of(store, "common").info.run_id, "comparison.json")).read_text("utf-8")
    )
    values = {each["name"]: each["values"][0]["value"] for each in common["scores"] if "pairs" in each}
    six = run_of(store, "six").data.metrics
    assert values["bleu"] == pytest.approx(six["score/bleu"]) and values["rouge_1"] == pytest.approx(six["score/rouge_1"])
    assert len(common["samples"]) == 6 and "differ in rows, batch size" in common["unequal"]
    assert any("are of different rows" in each for each in common["warnings"])


def _evaluations(store: MlflowClient, run: Run, found: Any) -> None:
    """Each model has an evaluation of its own in the record, beneath the comparison, with its scores on its checkpoint."""
    for number, model in enumerate(found["models"], 1):
        own = store.get_run(run_of(store, f"both-{number}").info.run_id)
        assert own.data.tags["mlflow.parentRunId"] == run.info.run_id and own.info.status == "FINISHED"
        assert own.data.params["model"] == model["ref"] and {"evaluation.json", "evaluation.html"} <= artifacts_of(store, own)
        for score in found["scores"]:
            assert own.data.metrics[f"score/{score['name']}"] == pytest.approx(score["values"][number - 1]["value"])
        (used,) = own.inputs.model_inputs
        scores = {each.key for each in store.get_logged_model(used.model_id).metrics}
        assert {"score/bleu", "score/exact_match"} <= scores and "perf/peak_memory_bytes" not in own.data.metrics
    with pytest.raises(ValueError, match="not enough values"):
        run_of(store, "again-1")


@pytest.mark.slow
def test_speed_and_memory_are_measured_in_a_process_of_its_own() -> None:
    for package in PACKAGES:
        component.load(package)
    settings = Eval(
        op=Compare(), engine=component.build("engine", "hf"), dataset="sales_eval", models=["tiny", str(tiny.folder())],
        sampling=Sampling(max_new_tokens=8), limit=3,
    )  # fmt: skip
    first = plans(settings)[0]
    (found,) = measured([first])
    assert found.seconds > 0 and found.tokens > 0 and found.memory > 50_000_000
    gone = replace(first, settings=replace(settings, model="no-such-model"))
    with pytest.raises(UserError, match="no-such-model: its speed cannot be measured: "):
        measured([gone])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["models=[tiny]"], "models: names fewer than two models"),
        (["models=[tiny,tiny]"], "models: names tiny twice"),
        (["models=[tiny,no-such-model]"], "no-such-model"),
        (
            ["models=[tiny,smollm2]", "dataset=null", "benchmark=[gsm8k]", "op.measure=true"],
            "op.measure: asks rows of a dataset",
        ),
        (["models=[tiny,smollm2]", "engine=openai"], "engine: one server answers, whatever models are named"),
        (["models=[tiny,smollm2]", "op.common=true"], "op.common: is for evaluations of the record"),
        (["op.runs=[a]"], "op.runs: names one evaluation"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_no_run(
    words: list[str], line: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launch(STAGE, ["op=compare", "dataset=sales_eval", *words]) == 2
    said = capfd.readouterr().err
    assert line in said and len([each for each in said.splitlines() if each.startswith("error:")]) == 1
    assert not (here / "mlflow.db").exists()
