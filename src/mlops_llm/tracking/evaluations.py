"""Answers as MLflow's evaluation view shows them: a trace each, with its scores as assessments."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from mlops_llm.record import Answer
from mlops_llm.tracking.store import Store

LONGEST = 20_000
"""Characters of a text in a trace; the run's table has it whole."""
_PREVIEW = 1000
"""What MLflow's list has room for."""
TOGETHER = 50
"""Answers in one write."""


def row(answer: Answer) -> dict[str, Any]:
    """An answer as a write holds it, its texts short enough for MLflow and free of what a database refuses."""
    found = dataclasses.asdict(answer)
    for name in ("prompt", "text", "comment"):
        found[name] = _plain(found[name])
    found["references"] = [_plain(each) for each in answer.references]
    found["judged"] = list(answer.judged)
    found["failure"] = [_plain(each) for each in answer.failure] if answer.failure else None
    found["metadata"] = {_plain(key)[:200]: _plain(value) for key, value in answer.metadata.items()}
    return found


def show(store: Store, run: str, rows: list[dict[str, Any]], checkpoint: str, time: int) -> None:
    """Make a trace of each row; a second time it makes the same traces, with the same assessments.

    They are written one after the other, since MLflow's own queue loses traces where SQLite has no connection left.

    Args:
        store: the record.
        run: MLflow run id, on whose page they are.
        rows: see `row`.
        checkpoint: LoggedModel id, on whose page they are too; may be empty.
        time: in ms, when they were given.
    """
    from mlflow.tracing.client import TracingClient

    client = TracingClient(store.address)
    experiment = store.client.get_run(run).info.experiment_id
    spans = []
    for each in rows:
        # The list has the latest trace on top, so that the first question comes out there.
        begun = time - each["place"]
        client.start_trace(_info(each, run, checkpoint, experiment, begun))
        spans.append(_span(each, run, begun))
    try:
        client.log_spans(experiment, spans)
    except NotImplementedError as error:
        # MLflow says so of a server older than 3.4, which has the previews all the same, and of one that is away.
        if not store.reachable():
            raise ConnectionError(str(error)) from error


def _info(each: dict[str, Any], run: str, checkpoint: str, experiment: str, begun: int) -> Any:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TRACE_SCHEMA_VERSION, TRACE_SCHEMA_VERSION_KEY, TraceMetadataKey, TraceTagKey

    metadata = {TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION), TraceMetadataKey.SOURCE_RUN: run}
    if checkpoint:
        metadata[TraceMetadataKey.MODEL_ID] = checkpoint
    if each["tokens"]:
        metadata[TraceMetadataKey.TOKEN_USAGE] = json.dumps({"output_tokens": each["tokens"], "total_tokens": each["tokens"]})
    return TraceInfo(
        trace_id=_trace_id(run, each["place"]),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=begun,
        state=TraceState.OK if each["text"] else TraceState.ERROR,
        request_preview=_preview(each["prompt"]),
        response_preview=_preview(each["text"]),
        client_request_id=f"row {each['place'] + 1}",
        execution_duration=round(each["seconds"] * 1000),
        trace_metadata=metadata,
        tags={TraceTagKey.TRACE_NAME: "answer"} | {_plain(key): value[:4000] for key, value in each["metadata"].items()},
        assessments=_assessments(each, run),
    )


def _assessments(each: dict[str, Any], run: str) -> list[Any]:
    from mlflow.entities import AssessmentSource, Expectation, Feedback
    from mlflow.tracing.constant import AssessmentMetadataKey

    metadata = {AssessmentMetadataKey.SOURCE_RUN_ID: run}
    code = AssessmentSource("CODE", "mlops_llm")
    found: list[Any] = []
    for name, value in each["scores"].items():
        judged = name in each["judged"]
        source = AssessmentSource("LLM_JUDGE", "judge") if judged else code
        said = each["comment"] if each["comment"] and (judged or not each["judged"]) else None
        found.append(Feedback(_plain(name), value, source=source, rationale=said, metadata=dict(metadata)))
    if each["failure"]:
        kind, cause = each["failure"]
        found.append(Feedback("failure", kind, source=code, rationale=cause, metadata=dict(metadata)))
    if each["references"]:
        wanted = each["references"] if len(each["references"]) > 1 else each["references"][0]
        found.append(Expectation("expected_response", wanted, source=code, metadata=dict(metadata)))
    for one in found:
        one.assessment_id = f"a-{_digest(run, each['place'], type(one).__name__, one.name)}"
    return found


def _span(each: dict[str, Any], run: str, begun: int) -> Any:
    from mlflow.entities import Span
    from mlflow.tracing.constant import SpanAttributeKey

    trace = _trace_id(run, each["place"])
    failed = not each["text"]
    attributes = {
        SpanAttributeKey.REQUEST_ID: trace,
        SpanAttributeKey.SPAN_TYPE: "CHAT_MODEL",
        SpanAttributeKey.INPUTS: {"messages": [{"role": "user", "content": each["prompt"]}]},
        SpanAttributeKey.OUTPUTS: {"choices": [{"message": {"role": "assistant", "content": each["text"]}}]},
    }
    return Span.from_dict(
        {
            "name": "answer",
            "trace_id": trace,
            "span_id": _digest(run, each["place"], "span")[:16],
            "parent_span_id": None,
            "start_time_unix_nano": begun * 1_000_000,
            "end_time_unix_nano": begun * 1_000_000 + round(each["seconds"] * 1e9),
            "status": {
                "code": "STATUS_CODE_ERROR" if failed else "STATUS_CODE_OK",
                "message": each["failure"][1] if failed and each["failure"] else "",
            },
            "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()},
        }
    )


def _trace_id(run: str, place: int) -> str:
    return f"tr-{_digest(run, place, 'trace')}"


def _digest(run: str, place: int, *names: str) -> str:
    return hashlib.sha256("\n".join([run, str(place), *names]).encode()).hexdigest()[:32]


def _preview(text: str) -> str:
    return text if len(text) <= _PREVIEW else f"{text[: _PREVIEW - 1]}…"


def _plain(text: str) -> str:
    """A text that every database takes: no NUL, no half of a pair; cut where it is too long."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]} … (cut; whole in the run's table of answers)"
    return short.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
