"""Reports as commands: from what the record holds of an evaluation to files that can be sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.eval.report.facts import schema
from tests.record import artifacts_of, client, run_of

ASKED = ["dataset=sales_eval", "limit=6", "sampling.max_new_tokens=12", "metric=[bleu,exact_match]"]
ASKED += ["publish.rows=0", "overlap.check=false"]


@pytest.fixture
def say(beside: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """A function that runs an evaluation's command beside the training `first` and returns what it said."""
    monkeypatch.chdir(beside)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path / "cache"))

    def run(*words: str, code: int = 0) -> str:
        capfd.readouterr()
        got = launch(STAGE, list(words))
        out, err = capfd.readouterr()
        assert got == code and "Traceback" not in err, out + err
        return out if code == 0 else err.strip()

    return run


def test_an_evaluation_becomes_a_report_in_four_forms(say: Callable[..., str], beside: Path) -> None:
    pytest.importorskip("typst")
    say("run_name=tiny_six", "model=tiny", "project=sales", *ASKED)
    say("run_name=sales_six", "model=runs:/first/last", *ASKED)
    said = say("op=report", "run=sales_six", "op.lang=en", "run_name=sent")
    folder, store = beside / "outputs/sent", client(beside)
    forms = {f"report.{each}" for each in ("pdf", "xlsx", "json", "html")}
    flat = "".join(said.split())
    assert all(str(folder / each) in flat for each in forms)
    sent = run_of(store, "sent")
    assert forms <= artifacts_of(store, sent) and sent.info.experiment_id == run_of(store, "sales_six").info.experiment_id
    assert not [each for each in folder.iterdir() if each.name.startswith(".report")]
    found = json.loads((folder / "report.json").read_text("utf-8"))
    Draft202012Validator(schema()).validate(found)
    evaluated = run_of(store, "sales_six")
    assert sent.data.tags["report.run"] == found["record"]["run"] == evaluated.info.run_id
    for each in found["scores"]:
        assert evaluated.data.metrics[f"score/{each['name']}"] == pytest.approx(each["value"])
    data = evaluated.data.tags
    assert found["dataset"]["digests"]["canonical"] == data["data.evaluation.digest.canonical"]
    assert found["model"]["weights"] == data["digest.weights"] and found["record"]["settings"]["limit"] == "6"
    compared = found["comparison"]["side_by_side"]
    assert [each["evaluation"] for each in compared["models"]] == ["sales_six", "tiny_six"]
    other = run_of(store, "tiny_six").data.metrics
    assert compared["scores"][0]["values"][1]["value"] == pytest.approx(other["score/bleu"])
    assert found["words"]["comparison"] == compared["conclusion"]["en"] and found["people"] == []
    assert found["dataset"]["version"].startswith("sha256 ") and str(beside) not in found["dataset_name"]
    assert evaluated.info.run_id in (folder / "report.html").read_text("utf-8")


def test_a_comparison_leaves_evaluations_that_are_reported_beside_each_other(say: Callable[..., str], beside: Path) -> None:
    say("op=compare", "models=[tiny,runs:/first/last]", "run_name=both", *ASKED)
    made = run_of(client(beside), "both").info.run_id
    line = say("op=report", "run=both", code=2)
    assert line.startswith("error: run=both: is a comparison of several evaluations; name an evaluation: ")
    first = line.rpartition(": ")[2].partition(", ")[0]
    say("op=report", f"run={first}", "op.format=[json]", "run_name=of_one")
    found = json.loads((beside / "outputs/of_one/report.json").read_text("utf-8"))
    assert len(found["comparison"]["side_by_side"]["models"]) == 2 and made not in json.dumps(found["comparison"])
    assert say("op=report", "run=of_one", code=2).endswith(f"is a report itself; name an evaluation: {first}")


def test_what_cannot_be_reported_is_one_line_and_no_run(say: Callable[..., str], beside: Path) -> None:
    def refused(*words: str) -> str:
        before = len(client(beside).search_runs([run_of(client(beside), "first").info.experiment_id]))
        line = say("op=report", *words, code=2)
        assert len(client(beside).search_runs([run_of(client(beside), "first").info.experiment_id])) == before
        assert len(line.splitlines()) == 1, line
        return line

    assert refused() == "error: run: names no run; name that of an evaluation: run=NAME"
    assert "no run is called 'nobody'" in refused("run=nobody")
    assert "run=first: is a run of the stage 'train', not of an evaluation" in refused("run=first")
    assert "op.samples: is -1" in refused("run=first", "op.samples=-1")
    (beside / "full").write_text("a file")
    assert "full" in refused("run=first", "output=full/report")


def test_a_stopped_evaluation_has_nothing_to_report(
    say: Callable[..., str], beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("mlops_llm.eval.recording.result", stop)
        say("run_name=halfway", "model=tiny", "project=sales", *ASKED, code=1)
    line = say("op=report", "run=halfway", code=2)
    assert "run=halfway: holds no results (FAILED; it has no readable evaluation.json)" in line


def test_numbers_alone_are_reported_without_a_text(say: Callable[..., str], beside: Path) -> None:
    say("run_name=private_six", "model=tiny", "project=sales", "save_outputs=false", *ASKED)
    say("op=report", "run=private_six", "op.format=[json,html]", "run_name=told_private")
    rows = (Path(__file__).parents[2] / "datasets/sales_eval.jsonl").read_text("utf-8").splitlines()[:6]
    for form in ("json", "html"):
        written = (beside / f"outputs/told_private/report.{form}").read_text("utf-8")
        assert not [each for row in rows for each in (json.loads(row)["prompt"],) if each in written]
