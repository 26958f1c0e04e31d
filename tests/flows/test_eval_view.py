"""An evaluation in MLflow: its answers as traces of the run and of the checkpoint, its table, page and pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlops_llm.eval import figures, page, shown
from mlops_llm.eval.outcome import Outcome
from mlops_llm.eval.recording import PAGE, TABLE
from mlops_llm.record import Answer, Checkpoint
from mlops_llm.tracking.opening import open_run
from mlops_llm.tracking.run import MlflowRun, Opening
from tests.outcomes import FAILED, outcome
from tests.record import artifacts_of, checkpoints_of, client, run_of


def record(found: Outcome, run: MlflowRun, checkpoint: Checkpoint) -> None:
    """Write down what a person looks at."""
    run.uses(checkpoint)
    run.answers(shown.answers(found, 200), checkpoint)
    run.artifact(TABLE, shown.columns(found))
    run.artifact(PAGE, page.page(found))
    for name, figure in figures.figures(found).items():
        run.figure(name, figure)


@pytest.fixture(scope="module")
def store(beside: Path) -> MlflowClient:
    return client(beside)


@pytest.fixture(scope="module")
def checkpoint(store: MlflowClient, trained: Path) -> Checkpoint:
    model = checkpoints_of(store, run_of(store, "first"))["checkpoint-20"]
    return Checkpoint("checkpoint-20", 20, trained / "outputs/first/checkpoint-20", model=model.model_id)


@pytest.fixture(scope="module")
def opened(beside: Path) -> Iterator[Callable[[str], Any]]:
    """A function that opens a run of an evaluation beside the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(beside)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield lambda name: open_run(Opening("eval", "sales", name, beside / "outputs" / name))


@pytest.fixture(scope="module")
def viewed(opened: Callable[[str], Any], store: MlflowClient, checkpoint: Checkpoint) -> Any:
    """The run of an evaluation."""
    with opened("viewed") as run:
        record(outcome(), run, checkpoint)
    return run_of(store, "viewed")


def traces(store: MlflowClient, run: Any, **other: Any) -> list[Any]:
    """A run's traces, the latest first, as MLflow's page lists them."""
    return list(store.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=500, **other))


def test_every_answer_is_a_trace_with_its_scores(store: MlflowClient, viewed: Any) -> None:
    found = traces(store, viewed)
    assert [each.info.client_request_id for each in found] == [f"row {place}" for place in range(1, 31)]
    first = found[0]
    assert first.info.request_preview == "这款手机支持无线充电吗？" and str(first.info.state) == "OK"
    (span,) = first.data.spans
    assert span.inputs["messages"][0]["content"] == first.info.request_preview
    assert span.outputs["choices"][0]["message"]["content"] == "您好，这个问题我需要核实以后再回复您。"
    said = {each.name: each for each in first.info.assessments}
    assert (said["judge/accuracy"].value, said["bleu"].value) == (5.0, 3.1)
    assert said["judge/accuracy"].source.source_type == "LLM_JUDGE" and said["bleu"].source.source_type == "CODE"
    assert said["judge/accuracy"].rationale == "没有回答问题，只是套话。" and said["bleu"].rationale is None
    assert said["expected_response"].value.startswith("支持")
    assert first.info.tags["topic"] == "产品" and first.info.execution_duration == 800


def test_a_score_that_no_judge_gave_says_why_where_that_is_known(opened: Callable[[str], Any], store: MlflowClient) -> None:
    with opened("program") as run:
        run.answers([Answer(0, "def f():", "  return 1", (), {"pass@1": 0.0}, comment="AssertionError: no 2")])
    (found,) = traces(store, run_of(store, "program"))
    (said,) = found.info.assessments
    assert (said.name, said.value, said.rationale) == ("pass@1", 0.0, "AssertionError: no 2")


def test_failed_answers_say_why(store: MlflowClient, viewed: Any) -> None:
    found = {int(each.info.client_request_id.split()[1]) - 1: each for each in traces(store, viewed)}
    for place, failure in FAILED.items():
        said = {each.name: each for each in found[place].info.assessments}
        assert (said["failure"].value, said["failure"].rationale) == (failure.kind.value, failure.cause)
    states = {place: str(each.info.state) for place, each in found.items()}
    assert [place for place, state in states.items() if state == "ERROR"] == [7, 19, 24]


def test_they_are_on_the_page_of_the_checkpoint_too(store: MlflowClient, viewed: Any, checkpoint: Checkpoint) -> None:
    found = store.search_traces(locations=[viewed.info.experiment_id], model_id=checkpoint.model, max_results=500)
    assert {each.info.trace_id for each in found} == {each.info.trace_id for each in traces(store, viewed)}


def test_the_table_is_one_that_mlflow_opens(store: MlflowClient, viewed: Any) -> None:
    assert {"path": TABLE, "type": "table"} in json.loads(viewed.data.tags["mlflow.loggedArtifacts"])
    table = json.loads(Path(store.download_artifacts(viewed.info.run_id, TABLE)).read_text("utf-8"))
    assert table["columns"][:4] == ["row", "prompt", "answer", "reference"] and len(table["data"]) == 30
    assert {PAGE, "plots/scores.png", "plots/distribution.png"} <= artifacts_of(store, viewed)


def test_what_is_written_a_second_time_is_there_once(
    opened: Callable[[str], Any], store: MlflowClient, checkpoint: Checkpoint
) -> None:
    answers = shown.answers(outcome(), 3)
    with opened("twice") as run:
        run.uses(checkpoint)
        run.answers(answers, checkpoint)
        run.answers(answers, checkpoint)
    found = traces(store, run_of(store, "twice"))
    assert len(found) == 3 and all(len(each.data.spans) == 1 for each in found)
    assert all(len({one.name for one in each.info.assessments}) == len(each.info.assessments) == 7 for each in found)


def test_a_server_that_goes_away_in_between_loses_none(
    opened: Callable[[str], Any], store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracing.client import TracingClient

    sent = []
    real = TracingClient.start_trace

    def failing(self: Any, info: Any) -> Any:
        sent.append(info.trace_id)
        if len(sent) == 3:
            raise ConnectionError("connection refused")
        return real(self, info)

    monkeypatch.setattr(TracingClient, "start_trace", failing)
    with opened("away") as run:
        run.answers(shown.answers(outcome(), 5))
        assert run.waiting
    assert not run.waiting
    found = traces(store, run_of(store, "away"))
    assert len(found) == 5 and all(each.data.spans and each.info.assessments for each in found)


def test_any_text_can_be_recorded(opened: Callable[[str], Any], store: MlflowClient) -> None:
    bad = "<script>alert(1)</script>\x00\x07\u202e \udc80" + "长" * 100_000
    with opened("any-text") as run:
        run.answers([Answer(0, bad, bad, (bad,), {"评分/准确": 1.0}, (), bad, ("server", bad), metadata={bad: bad})])
    (found,) = traces(store, run_of(store, "any-text"))
    said = found.data.spans[0].outputs["choices"][0]["message"]["content"]
    assert said.startswith("<script>alert(1)</script>\\x00") and "whole in the run's table" in said and len(said) < 21_000


def test_answers_of_several_models_are_apart(opened: Callable[[str], Any], store: MlflowClient) -> None:
    for name, text in (("model-one", "甲"), ("model-two", "乙")):
        with opened(name) as run:
            run.answers([dataclasses.replace(shown.answers(outcome(), 1)[0], text=text)])
    found = [traces(store, run_of(store, name)) for name in ("model-one", "model-two")]
    assert [each[0].info.response_preview for each in found] == ["甲", "乙"]
    assert found[0][0].info.request_preview == found[1][0].info.request_preview
