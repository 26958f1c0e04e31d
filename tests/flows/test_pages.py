"""What a person sees in MLflow's pages, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from mlops_llm.eval.comparison_page import page as comparison_page
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.page import page
from mlops_llm.eval.recording import PAGE
from mlops_llm.record import Checkpoint
from mlops_llm.tracking.opening import open_run
from mlops_llm.tracking.run import Opening
from tests.commands import SMOKE, environment, ok, train
from tests.flows.test_eval_view import record
from tests.outcomes import HOSTILE, everywhere, outcome
from tests.ports import own_port
from tests.record import checkpoints_of, client, run_of
from tests.security.test_pages import PAYLOAD, looked_at, opened
from tests.unit.test_comparison import comparison
from tests.unit.test_comparison import outcome as outcome_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: MLflow's pages cannot be looked at"),
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a multirun of two jobs."""
    folder = tmp_path_factory.mktemp("swept")
    ok(train(folder, "-m", *SMOKE, "trainer.learning_rate=1e-4,1e-2", "run_name=sweep"))
    return folder


@pytest.fixture(scope="module")
def address(swept: Path) -> Iterator[str]:
    """Where `mlflow ui` shows that folder."""
    port = own_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        cwd=swept, env=environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail("mlflow ui did not start")
        yield f"http://127.0.0.1:{port}/#"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def evaluated(address: str, swept: Path) -> Any:
    """The run of an evaluation that was recorded through that server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(swept)
        patch.setenv("MLFLOW_TRACKING_URI", address.removesuffix("/#"))
        model = checkpoints_of(client(swept), run_of(client(swept), "sweep-0"))["checkpoint-20"]
        checkpoint = Checkpoint("checkpoint-20", 20, swept, model=model.model_id)
        with open_run(Opening("eval", "sales", "evaluated", swept / "outputs/evaluated")) as run:
            record(outcome(), run, checkpoint)
    return client(swept).get_run(run.id)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with api.sync_playwright() as play:
        window = play.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield window
        window.close()


def seen(browser: Any, address: str, *texts: str) -> None:
    """Open a page and wait until it shows all texts."""
    page = opened(browser, viewport={"width": 1600, "height": 1400})
    try:
        page.goto(address)
        for text in texts:
            page.get_by_text(text, exact=False).first.wait_for(timeout=60_000)
    finally:
        page.close()


def test_runs_are_listed_under_their_parent_with_their_dataset(browser: Any, address: str) -> None:
    page = opened(browser, viewport={"width": 1600, "height": 1400})
    try:
        page.goto(f"{address}/experiments/1/runs?workflowType=machine_learning")
        page.get_by_text("sweep", exact=True).first.wait_for(timeout=60_000)
        page.locator(".ag-row button:visible").first.click()  # the parent's jobs
        for text in ("sweep-0", "sweep-1", "sales_sft", "matching run"):
            page.get_by_text(text).first.wait_for(timeout=60_000)
    finally:
        page.close()


def test_a_run_shows_dataset_tags_and_registered_model(browser: Any, address: str, swept: Path) -> None:
    run = run_of(client(swept), "sweep-1").info.run_id
    page = f"{address}/experiments/1/runs/{run}"
    seen(
        browser,
        f"{page}?workflowType=machine_learning",
        "sales_sft",
        "Training",
        "Finished",
        "stage",
        "best.checkpoint",
        "sales",
    )
    seen(browser, f"{page}/artifacts?workflowType=machine_learning", "plots", "samples.json", "config.yaml", "environment")
    seen(
        browser,
        f"{page}/model-metrics?workflowType=machine_learning",
        "tokens_per_second",
        "mean_token_accuracy",
        "(eval/loss)",
    )


def test_checkpoints_are_listed_as_models(browser: Any, address: str) -> None:
    seen(
        browser,
        f"{address}/experiments/1/models?workflowType=machine_learning",
        "checkpoint-10",
        "checkpoint-20",
        "sweep-0",
        "Ready",
    )


def test_jobs_of_a_multirun_compare(browser: Any, address: str, swept: Path) -> None:
    runs = [run_of(client(swept), f"sweep-{job}").info.run_id for job in (0, 1)]
    page = f'{address}/compare-runs?runs={json.dumps(runs)}&experiments=["1"]'
    seen(browser, page, "Comparing 2 Runs", "sweep-0", "sweep-1", "trainer.learning_rate", "0.0001", "0.01", "eval/loss")
    for run in runs:
        loss = client(swept).get_run(run).data.metrics["eval/loss"]
        seen(browser, page, f"{loss:.3f}"[:4])


def test_the_picture_of_the_loss_is_shown(browser: Any, address: str, swept: Path) -> None:
    run = run_of(client(swept), "sweep-1").info.run_id
    page = opened(browser, viewport={"width": 1600, "height": 1400})
    try:
        page.goto(f"{address}/experiments/1/runs/{run}/artifacts/plots/loss.png?workflowType=machine_learning")
        wide = "() => [...document.images].some(each => each.complete && each.naturalWidth > 400)"
        page.wait_for_function(wide, timeout=60_000)
    finally:
        page.close()


def test_answers_of_an_evaluation_are_on_the_pages_of_run_and_model(browser: Any, address: str, evaluated: Any) -> None:
    page = f"{address}/experiments/{evaluated.info.experiment_id}"
    texts = ("这款手机支持无线充电吗？", "您好，这个问题我需要核实以后再回复您。", "accuracy", "timeout")
    seen(browser, f"{page}/runs/{evaluated.info.run_id}/traces?workflowType=machine_learning", *texts)
    (model,) = evaluated.inputs.model_inputs
    seen(browser, f"{page}/models/{model.model_id}/traces?workflowType=machine_learning", *texts[:2])


def test_the_page_of_an_evaluation_is_shown_among_the_artifacts(browser: Any, address: str, evaluated: Any) -> None:
    where = f"{address}/experiments/{evaluated.info.experiment_id}/runs/{evaluated.info.run_id}/artifacts/{PAGE}"
    view = opened(browser, viewport={"width": 1600, "height": 1400})
    try:
        view.goto(f"{where}?workflowType=machine_learning")
        inside = view.frame_locator("iframe").first
        for text in ("Overall score", "4.29 / 5", "professionalism", "没有回答问题，只是套话。"):
            inside.get_by_text(text).first.wait_for(timeout=60_000)
    finally:
        view.close()


def test_the_page_runs_nothing_that_a_model_wrote(browser: Any, tmp_path: Path) -> None:
    """Opened from the disk, without any server."""
    file = tmp_path / PAGE
    file.write_text(page(everywhere(HOSTILE)), "utf-8")
    view = opened(browser)
    said, asked = [], []
    view.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    view.on("request", lambda request: asked.append(request.url))
    try:
        view.goto(file.as_uri())
        assert view.locator("article").count() == 1 and view.locator("script, img").count() == 0
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert (said, asked) == ([], [file.as_uri()])
    finally:
        view.close()


def test_mlflows_own_pages_run_nothing_that_somebody_wrote(browser: Any, address: str, swept: Path) -> None:
    """Names, settings, tags, answers and rows of a run that are full of markup, on each page that shows them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(swept)
        patch.setenv("MLFLOW_TRACKING_URI", address.removesuffix("/#"))
        model = checkpoints_of(client(swept), run_of(client(swept), "sweep-0"))["checkpoint-20"]
        checkpoint = Checkpoint("checkpoint-20", 20, swept, model=model.model_id)
        name = "<img src=x onerror=window.taken=1>"
        with open_run(Opening("eval", "hostile", name, swept / "outputs/hostile")) as run:
            run.params({"op.note": PAYLOAD.replace("\udc80", ""), "dataset": "<img src=x onerror='window.taken=1'>"})
            run.tags({"said": PAYLOAD.replace("\udc80", ""), "mlflow.note.content": PAYLOAD.replace("\udc80", "")})
            record(everywhere(PAYLOAD), run, checkpoint)
        client(swept).create_registered_model("hostile", {"t": "<b>"}, PAYLOAD.replace("\udc80", "").replace("\0", ""))
    experiment = client(swept).get_run(run.id).info.experiment_id
    base = f"{address}/experiments/{experiment}"
    pages = [f"{base}/runs", *(f"{base}/runs/{run.id}{each}" for each in ("", "/artifacts", f"/artifacts/{PAGE}", "/traces"))]
    for each in (*pages, f"{address}/models/hostile"):
        view, said, asked = looked_at(browser, f"{each}?workflowType=machine_learning", used=False)
        try:
            marked = view.get_by_text(
                "hostile" if "models/" in each else "window.taken"
            )  # Markdown is shown without the markup
            until = time.monotonic() + 60
            while not (marked.count() or view.frames[1:]) and time.monotonic() < until:
                view.wait_for_timeout(200)
            assert marked.count() or view.frames[1:], f"{each} shows nothing of it"
            view.wait_for_timeout(300)  # what would run has run by now
            for frame in view.frames:
                assert frame.evaluate("window.taken === undefined"), each
            assert said == [] and not [one for one in asked if "taken" in one or "127.0.0.1:9/" in one or one == "http://x/"], (
                each
            )
        finally:
            view.close()


def test_the_tables_of_a_comparison_are_sorted_by_a_click(browser: Any, tmp_path: Path) -> None:
    """And nothing else runs that is on the page."""
    file = tmp_path / "comparison.html"
    ones = [outcome_of([1.0, 0.0, 0.5], most=None, answer=HOSTILE), outcome_of([0.25, 0.0, 1.0], most=None, answer=HOSTILE)]
    file.write_text(comparison_page(comparison(*ones), Lang.zh), "utf-8")
    view = opened(browser)
    said, errors = [], []
    view.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    view.on("pageerror", lambda error: errors.append(str(error)))
    try:
        view.goto(file.as_uri())
        table = view.locator("table.side")
        rows = "rows => rows.map(row => row.cells[0].textContent)"
        shown = [table.locator("tbody tr").evaluate_all(rows)]
        for _ in range(2):
            table.locator("th").filter(has_text="1 models:").click()
            shown.append(table.locator("tbody tr").evaluate_all(rows))
        assert shown == [["1", "3", "2"], ["1", "3", "2"], ["2", "3", "1"]] and (said, errors) == ([], [])
    finally:
        view.close()
