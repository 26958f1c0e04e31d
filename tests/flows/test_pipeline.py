"""Pipelines by real commands: nothing is done twice, what was cut off goes on, and what fails says what to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mlops_llm.entry import launch
from mlops_llm.launch import process as launch_process
from mlops_llm.pipeline import process
from mlops_llm.pipeline.__main__ import STAGE
from mlops_llm.tracking.store import connect_to
from tests.commands import Stages, start, wait_for
from tests.flows.conftest import copy
from tests.record import artifacts_of, client, run_of

CHEAP = """# python -m mlops_llm.pipeline +experiment=cheap
project: sales
values: {kind: none}
stages:
  first: {command: data op=stats dataset=own op.near=false}
  second: {command: "data op=validate dataset=own op.structure_only=true", needs: [first]}
"""


def rows(count: int, more: str = "") -> str:
    each = ({"prompt": f"问题 {number}{more}", "response": f"回答 {number}"} for number in range(count))
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in each)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with nothing in it, which takes seconds to make."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect_to(f"sqlite:///{file}")
    copy(file, file.with_name("copied.db"))
    return file.with_name("copied.db")


@pytest.fixture
def place(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with flows, rows and a record of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(here / "cache"))
    (here / "conf/experiment").mkdir(parents=True)
    (here / "conf/experiment/cheap.yaml").write_text(CHEAP, "utf-8")
    (here / "datasets").mkdir()
    (here / "datasets/own.jsonl").write_text(rows(10) + rows(1), "utf-8")
    return here


@pytest.fixture
def run(place: Path, empty: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that runs a pipeline here and returns its result with what it printed, or its error."""
    monkeypatch.setattr(launch_process, "subprocess", Stages)

    def given(*words: str, code: int = 0, name: str = "") -> Any:
        if code != 2 and "op=plan" not in words and not (place / "mlflow.db").exists():
            shutil.copy(empty, place / "mlflow.db")
        capfd.readouterr()
        got = launch(STAGE, [*words, *([f"run_name={name}"] if name else [])])
        out, err = capfd.readouterr()
        assert got == code and "Traceback" not in err, out + err
        if not name or not (place / f"outputs/{name}/result.json").is_file():
            return err.strip() if code == 2 else out
        return json.loads((place / f"outputs/{name}/result.json").read_text("utf-8")) | {"out": out, "err": err}

    return given


def states(found: Any) -> dict[str, str]:
    return {name: each["state"] for name, each in found["stages"].items()}


def begun(here: Path, name: str, *files: str) -> Callable[[], bool]:
    """Whether a stage's run is running with its settings recorded, and files are there in its folder."""

    def look() -> bool:
        if not (here / "mlflow.db").is_file():
            return False
        store = client(here)
        found = [each.experiment_id for each in store.search_experiments()]
        runs = store.search_runs(found, f"attributes.run_name = '{name}' and attributes.status = 'RUNNING'")
        there = bool(runs) and "config.yaml" in artifacts_of(store, runs[0])
        return there and all(list(Path(runs[0].data.tags["output"]).glob(each)) for each in files)

    return look


def _named(here: Path, ending: str) -> list[str]:
    """Names of runs with this ending."""
    store = client(here)
    found = [each.experiment_id for each in store.search_experiments()]
    runs = store.search_runs(found, f"attributes.run_name LIKE '%{ending}'")
    return [each.info.run_name for each in runs]


def test_only_what_changed_is_done_again_and_the_plan_knows_what_it_took(place: Path, run: Callable[..., Any]) -> None:
    assert "unknown" in run("+experiment=cheap", "op=plan") and not (place / "mlflow.db").exists()
    first = run("+experiment=cheap", name="one")
    assert states(first) == {"first": "done", "second": "done"}
    store = client(place)
    parent = run_of(store, "one")
    nested = run_of(store, "one-first")
    assert nested.data.tags["mlflow.parentRunId"] == parent.info.run_id and nested.data.tags["project"] == "sales"
    assert (place / "outputs/one/logs/first.log").is_file() and "pipeline.html" in artifacts_of(store, parent)

    plan = run("+experiment=cheap", "op=plan")
    assert plan.count("there already") == 2 and "nothing is left to do" in plan
    (place / "datasets/own.jsonl").write_text(rows(7), "utf-8")
    second = run("+experiment=cheap", name="two")
    assert states(second) == {"first": "done", "second": "done"}
    assert "(done again: dataset changed since one-first)" in second["out"] and "all that is left takes about" in second["out"]
    assert states(run("+experiment=cheap", "stages.second.op.keep=3", name="three")) == {"first": "there", "second": "done"}


def test_conditions_leave_out_hand_on_and_end(place: Path, run: Callable[..., Any]) -> None:
    (place / "conf/experiment/when.yaml").write_text(
        """# python -m mlops_llm.pipeline +experiment=when
values: {kind: none}
stages:
  first: {command: data op=stats dataset=own op.near=false}
  some: {command: data op=dedup_exact dataset=own, needs: [first], when: "${values.kind} == lora"}
  second: {command: data op=stats dataset=stage:some/dataset op.near=false op.model=tiny, needs: [some]}
  third: {command: data op=stats dataset=own, needs: [second], when: "stage:first/data/rows > 100", otherwise: end}
  fourth: {command: data op=stats dataset=own, needs: [third]}
""",
        "utf-8",
    )
    assert "left out, since none is not lora" in run("+experiment=when", "op=plan")
    found = run("+experiment=when", "kind=full", name="c")
    assert states(found) == {"first": "done", "some": "left_out", "second": "there", "third": "over", "fourth": "over"}
    assert "left out, since full is not lora" in found["out"]
    assert "stage:first/data/rows 11 is not > 100; the pipeline ends here" in " ".join(found["out"].split())


def test_a_failing_stage_names_its_log_and_its_command_and_is_tried_again(
    place: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "datasets/broken.jsonl").write_text('{"prompt": ""}\n', "utf-8")
    flow = CHEAP + "  bad: {command: data op=validate dataset=broken kind=sft, needs: [first]}\n"
    flow += "  lost: {command: data op=stats dataset=own, needs: [bad]}\n"
    (place / "conf/experiment/fails.yaml").write_text(flow, "utf-8")
    found = run("+experiment=fails", code=1, name="f")
    assert states(found) == {"first": "done", "second": "done", "bad": "no", "lost": "lost"}
    assert "stage bad was done and says no" in found["err"] and "it needs bad, which said no" in found["err"]
    found = run("+experiment=fails", "stages.bad.dataset=missing.jsonl", code=1, name="h")
    assert states(found) == {"first": "there", "second": "there", "bad": "failed", "lost": "lost"}
    assert (
        "stage bad: missing.jsonl: there is no such dataset" in found["err"]
        and "it needs bad, which failed" in found["err"]
        and "error: 1 of 4 stages failed: bad; what is done is not done twice: python -m mlops_llm.pipeline resume=h"
        in found["err"]
    )
    store = client(place)
    assert run_of(store, "f").info.status == "FINISHED" and run_of(store, "f").data.tags["result.failed"] == "true"
    broken = run_of(store, "h")
    assert broken.info.status == "FAILED" and "1 of 4 stages failed: bad" in broken.data.tags["run.error"]
    (place / "missing.jsonl").write_text(rows(2), "utf-8")
    run("resume=h")
    stages = json.loads((place / "outputs/h/result.json").read_text("utf-8"))["stages"]
    assert {name: each["state"] for name, each in stages.items() if name in ("bad", "lost")} == {"bad": "done", "lost": "done"}
    mended = run_of(store, "h")
    assert mended.info.status == "FINISHED" and not {"run.error", "result.failed"} & set(mended.data.tags)
    assert mended.data.metrics["stages/failed"] == 0 and mended.data.metrics["stages/done"] == 2
    assert [each.value for each in store.get_metric_history(mended.info.run_id, "stages/failed")] == [1, 0]

    calls = list[str]()
    real = process.carried_out

    def failing(name: str, *others: Any, **more: Any) -> int:
        calls.append(name)
        return 1 if len(calls) < 3 else real(name, *others, **more)

    monkeypatch.setattr(process, "carried_out", failing)
    (place / "datasets/own.jsonl").write_text(rows(3), "utf-8")
    once = run("+experiment=cheap", code=1, name="once")
    assert states(once) == {"first": "failed", "second": "lost"}
    assert f"its log: {place / 'outputs/once/logs/first.log'}" in once["out"]
    assert "alone:   python -m mlops_llm.data op=stats dataset=own op.near=false" in once["out"]
    calls.clear()
    again = run("+experiment=cheap", "stages.first.retries=2", name="g")
    assert states(again) == {"first": "done", "second": "done"} and calls == ["first"] * 3 + ["second"]
    assert "stage first failed; try 3 of 3" in again["err"]
    assert [run_of(store, f"g-first{more}").info.status for more in ("", "-2", "-3")] == ["FAILED", "FAILED", "FINISHED"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+experiment=cheep"], "did you mean cheap?"),
        (["+experiment=cheap", "stages.first.needs=[second]"], "waits for itself: first -> second -> first"),
        (["+experiment=cheap", "stages.second.needs=[frist]"], "there is no stage 'frist' (did you mean first?)"),
        (["+experiment=cheap", "stages.second.dataset=stage:frist/dataset"], "which there is not (did you mean first?)"),
        (["+experiment=cheap", "stages.first.dataset=stage:second/dataset"], "which it does not need"),
        (["+experiment=cheap", "stages.first.op.naer=false"], "stages.first: Key 'naer' not in 'Stats' (did you mean near?)"),
        (["+experiment=cheap", "stages.frist.op.near=false"], "did you mean first?"),
        (["+experiment=cheap", "kidn=lora"], "did you mean kind?"),
        (["+experiment=cheap", "stages.first.dataset=nowhere"], "stages.first"),
        (["+experiment=cheap", "stages.first.retries=-1"], "retries: is -1"),
        (["stages={}"], "names no stages"),
    ],
)
def test_a_wrong_request_is_one_line(place: Path, run: Callable[..., Any], words: list[str], said: str) -> None:
    found = run(*words, code=2)
    assert said in found and len(found.splitlines()) == 1
    assert not (place / "mlflow.db").exists() and not (place / "outputs").exists()


def test_ctrl_c_stops_the_stage_and_resume_goes_on_in_the_same_run(place: Path, run: Callable[..., Any]) -> None:
    process = start(place, "+experiment=cheap", "run_name=s", stage="pipeline")
    wait_for(begun(place, "s-first"), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "resume=s" in err, out + err
    store = client(place)
    assert {run_of(store, name).info.status for name in ("s", "s-first")} <= {"KILLED", "FINISHED"}
    found = run("resume=s")
    assert "going on with s" in found
    parent = run_of(store, "s")
    assert parent.info.status == "FINISHED"
    assert states(json.loads((place / "outputs/s/result.json").read_text("utf-8")))["second"] == "done"


def test_a_server_of_the_flow_lives_as_long_as_its_stage(place: Path, run: Callable[..., Any]) -> None:
    (place / "serve.py").write_text(
        """import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *args): pass
print("up", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
""",
        "utf-8",
    )
    (place / "conf/experiment/served.yaml").write_text(
        """# python -m mlops_llm.pipeline +experiment=served
servers: {helper: {command: "python serve.py --port {port}", ready: /health}}
stages:
  first: {command: "data op=validate dataset=own op.structure_only=true name=server:helper/x"}
""",
        "utf-8",
    )
    found = run("+experiment=served", name="w")
    assert states(found) == {"first": "done"} and "server helper runs on port" in found["out"]
    tag = run_of(client(place), "w-first").data.tags["pipeline.server.helper"]
    from mlops_llm.ports import is_free

    assert is_free(int(tag.rpartition(":")[2]))
    assert states(run("+experiment=served", name="x")) == {"first": "there"}
    (place / "serve.py").write_text("raise SystemExit(3)", "utf-8")
    found = run("+experiment=served", "stages.first.op.keep=2", code=1, name="y")
    assert "ended with code 3 before it answered" in found["stages"]["first"]["reason"]


def test_a_multirun_over_whole_pipelines(place: Path, run: Callable[..., Any]) -> None:
    run("-m", "+experiment=cheap", "stages.second.op.keep=2,3", name="m")
    store = client(place)
    parent = run_of(store, "m")
    assert parent.data.tags["kind"] == "multirun" and parent.info.status == "FINISHED"
    jobs = [run_of(store, f"m-{number}") for number in (0, 1)]
    assert all(each.data.tags["mlflow.parentRunId"] == parent.info.run_id for each in jobs)
    assert run_of(store, "m-1-second").data.tags["mlflow.parentRunId"] == jobs[1].info.run_id
    assert not _named(place, "m-1-first")  # it was there, of the first job


def test_a_search_hands_its_best_try_on_and_goes_the_same_way_again(place: Path, run: Callable[..., Any]) -> None:
    pytest.importorskip("optuna")
    (place / "conf/experiment/search.yaml").write_text(
        """# python -m mlops_llm.pipeline +experiment=search
stages:
  tried:
    command: data op=validate dataset=own
    search: {method: optuna, over: {op.max_tokens: [1, 60]}, tries: 3, by: data/warnings}
  next: {command: data op=stats dataset=stage:tried/dataset op.near=false, needs: [tried]}
""",
        "utf-8",
    )
    found = run("+experiment=search", name="s")
    assert states(found) == {"tried": "done", "next": "done"}
    store = client(place)
    tries = [run_of(store, f"s-tried-{number}") for number in (1, 2, 3)]
    best = max(tries, key=lambda each: each.data.metrics["data/warnings"])
    assert found["stages"]["tried"]["run"] == best.info.run_name and "best of 3 tries" in found["stages"]["tried"]["reason"]
    assert len({each.data.params["op.max_tokens"] for each in tries}) == 3
    assert run_of(store, "s").info.run_id in {each.data.tags["mlflow.parentRunId"] for each in tries}
    again = run("+experiment=search", name="t")
    assert again["out"].count("there already") >= 4 and not _named(place, "t-tried-%")


def _release_once_said(process: int, log: Path, words: str) -> None:
    """Let a stopped process go on once a log has these words, or after two minutes."""
    until = time.monotonic() + 120
    while not (log.is_file() and words in log.read_text("utf-8")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process, signal.SIGCONT)


def test_a_stage_whose_pipeline_died_goes_on_and_the_next_pipeline_waits_for_it(place: Path, run: Callable[..., Any]) -> None:
    (place / "datasets/own.jsonl").write_text(rows(10_000), "utf-8")  # keeps the first stage busy until it is held
    process = start(place, "+experiment=cheap", "run_name=d", stage="pipeline")
    wait_for(begun(place, "d-first"), process)
    stage = int(run_of(client(place), "d-first").data.tags["run.process"].partition(":")[0])
    os.kill(stage, signal.SIGSTOP)
    process.kill()
    process.communicate()
    log = place / "outputs/e/pipeline.log"
    released = Thread(target=_release_once_said, args=(stage, log, "runs already as d-first"))
    released.start()
    found = run("+experiment=cheap", name="e")
    released.join()
    assert "first: runs already as d-first" in found["out"] and states(found) == {"first": "there", "second": "done"}
    store = client(place)
    assert run_of(store, "d-first").info.status == "FINISHED" and run_of(store, "d").info.status == "KILLED"
    assert not _named(place, "e-first")
