"""Surgery as commands: what they leave in the record, and that other stages use it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mlops_llm import digest
from mlops_llm.tracking.lineage import trace
from mlops_llm.tracking.store import Store
from tests.commands import start
from tests.record import artifacts_of, checkpoints_of, client, run_of


def surgery(folder: Path, *words: str, code: int = 0, stage: str = "surgery") -> tuple[str, str]:
    process = start(folder, *words, stage=stage)
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, out + err
    return out, err


@pytest.fixture(scope="module")
def averaged(beside: Path) -> Path:
    """A folder in which the two checkpoints of `first` were averaged, as run `avg`."""
    out, _ = surgery(
        beside,
        *["op=average", "run=first", "op.last=2", "op.notes=[早,晚]", "run_name=avg", "name=sales_avg"],
        *["then.evaluate=true", "dataset=sales_eval", "metric=[exact_match]", "limit=2", "sampling.max_new_tokens=4"],
    )
    (beside / "said").write_text(out, "utf-8")
    return beside


def test_the_record_holds_checkpoint_recipe_certificate_and_parents(averaged):
    store = client(averaged)
    run, first = run_of(store, "avg"), run_of(store, "first")
    model, parents = checkpoints_of(store, run)["averaged"], checkpoints_of(store, first)
    assert str(model.status) == "READY" and run.info.experiment_id == first.info.experiment_id
    ids = [f"models:/{parents[name].model_id}" for name in ("checkpoint-10", "checkpoint-20")]
    assert json.loads(model.tags["parents"]) == ids == json.loads(run.data.tags["parents"])
    assert model.tags["certificate"] == run.data.tags["certificate"] == "passed"
    read = store.get_run(run.info.run_id).inputs.model_inputs
    assert {f"models:/{each.model_id}" for each in read} >= {*ids}
    assert {"recipe.json", "certificate.json", "config.yaml", "result.json", "surgery.log"} <= artifacts_of(store, run)
    folder = averaged / "outputs" / "avg" / "averaged"
    assert model.tags["digest.weights"] == digest.weights(folder)
    told = json.loads((folder / "recipe.json").read_text("utf-8"))
    assert told["rebuild"] == json.loads((averaged / "outputs/avg/result.json").read_text("utf-8"))["rebuild"]
    assert f"'models=[{','.join(ids)}]'" in told["rebuild"]
    assert [each["ref"] for each in told["sources"]] == ids and [each["note"] for each in told["sources"]] == ["早", "晚"]
    assert {metric.key for metric in model.metrics} >= {"score/exact_match", "certificate/logit_kl", "certificate/logit_kl/2"}
    version = store.get_model_version_by_alias("sales_avg", "challenger")
    assert version.source == f"models:/{model.model_id}"


def test_parents_are_scored_in_evaluations_of_their_own_unless_the_record_has_them(averaged):
    store = client(averaged)
    run, parent = run_of(store, "avg"), run_of(store, "avg-parent-1")
    assert (parent.data.tags["stage"], parent.data.tags["mlflow.parentRunId"]) == ("eval", run.info.run_id)
    last = checkpoints_of(store, run_of(store, "first"))["checkpoint-20"]
    assert parent.data.tags["model"] == "runs:/first/checkpoint-20"
    assert any(each.key == "score/exact_match" and each.run_id == parent.info.run_id for each in last.metrics)
    words = ["then.evaluate=true", "dataset=sales_eval", "metric=[exact_match]", "limit=2", "sampling.max_new_tokens=4"]
    surgery(averaged, "op=average", "models=[runs:/first/last]", "run_name=more", *words)
    names = {each.info.run_name for each in store.search_runs([run.info.experiment_id])}
    assert "more" in names and "more-parent-1" not in names


def test_why_it_differs_from_a_model_begins_with_what_it_is_made_of(averaged):
    out, _ = surgery(averaged, "op=explain", "models=[runs:/avg/averaged,runs:/first/checkpoint-10]", stage="eval")
    said = " ".join(out.split())
    assert "made of others" in said and "average of 2 checkpoints (SWA)" in said
    assert "is runs:/first/checkpoint-10" in said and "0.5" in said


def test_the_end_says_path_size_parameters_method_sources_time_and_what_is_next(averaged):
    said = (averaged / "said").read_text("utf-8")
    for words in (
        "runs:/avg/averaged", "525,440", "average of 2 checkpoints (SWA)", "runs:/first/checkpoint-10 x 0.5", "[早]",
        "certificate: passed", "the new one", "sales_avg (alias challenger)",
        "python -m mlops_llm.eval model=runs:/avg/averaged dataset=sales_eval",
        "python -m mlops_llm.eval op=compare models=[runs:/first/checkpoint-20,runs:/avg/averaged] dataset=sales_eval",
    ):  # fmt: skip
        assert words in said, words


def test_its_past_is_followed_to_the_data(averaged, monkeypatch):
    from mlops_llm.models.ref import resolve

    monkeypatch.chdir(averaged)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    address = f"sqlite:///{averaged / 'mlflow.db'}"
    found = resolve("runs:/avg/averaged")
    lineage = trace(Store(client(averaged), address), found, found.tags["digest.weights"])
    assert lineage.runs == ("avg", "first") and lineage.bases == ("tiny",)
    assert "sales_sft" in {each.name for each in lineage.datasets}


def test_its_result_is_a_model_like_any_other(averaged):
    words = ["models=[runs:/avg/averaged,models:/sales_avg@challenger,tiny]", "op.t=0.5", "op.dry_run=true"]
    _, err = surgery(averaged, "op=merge_slerp", *words, code=2)
    assert err == "error: models: names 3, and merge_slerp takes 2; name them: models=[A,B]\n"
    words = ["models=[tiny,runs:/avg/averaged]", "then.evaluate=true", "dataset=sales_evil"]
    _, err = surgery(averaged, "op=merge_slerp", *words, code=2)
    assert "sales_evil" in err and len(err.splitlines()) == 1, "known before anything is merged"
    before = sorted(path.name for path in (averaged / "outputs").iterdir())
    out, _ = surgery(averaged, "op=merge_slerp", "models=[runs:/avg/averaged,runs:/first/last]", "op.dry_run=true")
    assert "SLERP (t = 0.5)" in out and sorted(path.name for path in (averaged / "outputs").iterdir()) == before
    out = ok_eval(averaged, "model=runs:/avg/averaged", "dataset=sales_eval", "metric=[exact_match]", "limit=2")
    assert "runs:/avg/averaged on sales_eval" in out


def ok_eval(folder: Path, *words: str) -> str:
    out, _ = surgery(folder, *words, "sampling.max_new_tokens=4", "run_name=scored", stage="eval")
    return out


def test_a_failing_certificate_is_recorded_and_nothing_is_registered(averaged, monkeypatch):
    from mlops_llm.entry import launch
    from mlops_llm.surgery import certificate
    from mlops_llm.surgery.__main__ import STAGE
    from mlops_llm.surgery.planning import Check

    monkeypatch.chdir(averaged)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(certificate, "_tied", lambda *_: iter([Check("tied_weights", "no", False, "torn")]))
    words = ["op=average", "models=[runs:/first/last]", "run_name=bad", "name=sales_bad"]
    assert launch(STAGE, words) == 1
    store = client(averaged)
    run = run_of(store, "bad")
    assert checkpoints_of(store, run)["averaged"].tags["certificate"] == run.data.tags["certificate"] == "failed"
    assert not [each for each in store.search_registered_models() if each.name == "sales_bad"]


def test_pruning_says_how_many_of_its_rows_the_model_was_trained_on(averaged):
    trained = ["model=runs:/first/best", "op.calibration=sales_sft", "op.samples=8"]
    out, _ = surgery(averaged, "op=prune_ffn", *trained, "run_name=narrow")
    assert re.search(r"seen in training +the model was trained on \d+ of them( at least)?: it may do worse on others", out), out
    assert "rows of sales_sft (the model was trained on" in out
