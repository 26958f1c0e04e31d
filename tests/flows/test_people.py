"""People in real commands: workbooks out, LibreOffice in between, ratings on the checkpoints, and a judge beside them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.eval.people import ballot as ballots
from mlops_llm.eval.people import checked, returned
from mlops_llm.eval.people.ballot import KEY
from tests import office
from tests.ballots import ballot, by_model, fill, sheets
from tests.chat_server import RATINGS, serve
from tests.record import client, run_of

ROWS = ["dataset=sales_eval", "limit=6", "sampling.max_new_tokens=12"]


@pytest.fixture
def said(
    beside: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Any]:
    """A function that runs a command beside the training `first`; returns its result.json, or with `code` what it said."""
    monkeypatch.chdir(beside)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path / "cache"))

    def run(name: str, *words: str, code: int = 0) -> Any:
        capfd.readouterr()
        got = launch(STAGE, [f"run_name={name}", *words])
        out, err = capfd.readouterr()
        assert got == code, out + err
        assert "Traceback" not in err
        if code:
            assert not (beside / f"outputs/{name}").exists()
            return err
        return json.loads((beside / f"outputs/{name}/result.json").read_text("utf-8")) | {"said": out + err}

    return run


@pytest.mark.slow
def test_people_rate_what_a_judge_rates_too(said: Callable[..., Any], beside: Path, tmp_path: Path) -> None:
    models = "models=[tiny,models:/sales@challenger]"
    result = said(
        "asked-people",
        "op=human_export",
        models,
        *ROWS,
        f"output={tmp_path / 'rate.xlsx'}",
        "op.raters=2",
        "op.format=[xlsx,csv]",
    )
    assert {each.name for each in tmp_path.glob("rate-*")} == {
        f"rate-{each}" for each in ("1.csv", "1.xlsx", "2.csv", "2.xlsx")
    }
    assert result["rows"] == 12 + 3 + 2
    files = [tmp_path / f"rate-{number}.xlsx" for number in (1, 2)]
    store = client(beside)
    run = run_of(store, "asked-people")
    found = ballots.read(Path(store.download_artifacts(run.info.run_id, KEY)).read_text("utf-8"), KEY)
    for file in files:
        with zipfile.ZipFile(file) as parts:
            whole = b"".join(parts.read(name) for name in parts.namelist())
        for word in ("challenger", "models:", "checkpoint", str(beside), "asked-people", "sales_eval"):
            assert word.encode() not in whole
        fill(file, found, by_model)
    given = f"op.files=[{files[0]},{files[1]}]"
    again = said("again", "op=human_export", models, *ROWS, f"output={tmp_path / 'rate.xlsx'}", "op.raters=2", code=2)
    assert "rate-1.xlsx: is there already, maybe filled in" in again

    result = said("from-people", "op=human_import", given)
    wins = result["wins"][0]
    assert (wins["first"], wins["win"], wins["rate"]) == ("tiny", 6, 1.0)
    assert all(each["alpha_ordinal"] == each["kappa"] == 1.0 for name, each in result["agreement"].items() if name != "overall")
    run = run_of(store, "from-people")
    best = store.get_logged_model(store.get_model_version_by_alias("sales", "challenger").source.removeprefix("models:/"))
    metrics = {each.key: each for each in best.metrics}
    assert metrics["score/human/overall"].value == pytest.approx(
        result["scores"]["models:/sales@challenger"]["human/overall"]["value"]
    )
    assert metrics["score/human/overall"].dataset_name == "sales_eval[6]"
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == metrics["score/human/overall"].dataset_digest
    assert len(store.get_run(run.info.run_id).inputs.model_inputs) == 2
    refused = said("twice", "op=human_import", f"op.files=[{files[0]},{files[0]}]", code=2)
    assert "is the file of rater 1, as is" in refused

    assert "no judge has rated answers to sales_eval" in said("early", "op=calibrate", "dataset=sales_eval", code=2)
    with serve() as server:
        how = [f"judge.base_url={server.address}", "publish.rows=0"]
        said("judge-1", "model=tiny", *ROWS, "judge=rubric_zh", "judge.model=judge-1", *how)
        said("compared", "op=compare", models, *ROWS, "judge=rubric_zh", "judge.model=judge-2", *how)
    result = said("calibrated", "op=calibrate", "dataset=sales_eval")
    by_name = {(each["second"], each["dimension"]): each for each in result["agreement"]}
    assert [each for _, each in by_name] == [*RATINGS, "overall"] * 2
    one, two = by_name["judge-1 (rubric_zh)", "accuracy"], by_name["judge-2 (rubric_zh)", "accuracy"]
    assert one["count"] == 6 and one["spearman"] is None
    assert one["difference"]["value"] == pytest.approx(RATINGS["accuracy"] - 4.5)
    assert two["count"] == 12 and two["difference"]["value"] == pytest.approx(RATINGS["accuracy"] - 3.5)
    assert {(each["count"], each["difference"]["value"]) for each in result["drift"]} == {(6, 0.0)}
    assert sorted(each["count"] for each in result["length"]) == [6, 6, 12, 12]
    assert result["shown first"]["count"] == 12
    calibrated = run_of(store, "calibrated")
    assert "calibrate/judge-1_rubric_zh/accuracy/difference" in calibrated.data.metrics
    assert calibrated.info.experiment_id == run.info.experiment_id


@pytest.mark.slow
def test_one_model_alone_and_rows_without_references(said: Callable[..., Any], tmp_path: Path, beside: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "几点开门？"}\n{"prompt": "=1+1"}\n', "utf-8")
    few = [f"dataset={rows}", "sampling.max_new_tokens=8", "op.dimensions=[quality]", "op.lang=en", "save_outputs=false"]
    result = said("alone", "op=human_export", "models=[tiny]", *few)
    page = load_workbook(beside / "outputs/alone/rate.xlsx")["ratings"]
    assert [cell.value for cell in page[1]] == ["id", "prompt", "answer", "quality", "comment (may be empty)"]
    assert result["none"] + page.max_row - 1 >= 3
    assert {each.name for each in (beside / "outputs/alone").iterdir()} == {
        "artifacts",
        "eval.log",
        "rate.xlsx",
        "result.json",
    }
    assert "几点开门" not in (beside / "outputs/alone/artifacts" / KEY).read_text("utf-8")
    assert "has 'tiny' in its name" in said("named", "op=human_export", "models=[tiny]", *few, "op.file=tiny.xlsx", code=2)
    elsewhere = tmp_path / "lone"
    elsewhere.mkdir()
    _, (file,) = sheets(ballot(), elsewhere)
    error = said("stray", "op=human_import", f"op.files=[{file}]", code=2)
    assert "this record knows no evaluation by people h0123456789ab" in error


@pytest.mark.skipif(office.SOFFICE is None, reason="LibreOffice is not installed: no file is opened, filled in and saved by it")
@pytest.mark.parametrize(("ending", "tidied"), [(".xlsx", True), (".csv", False)])
def test_libreoffice_opens_fills_in_and_saves_it(tmp_path: Path, ending: str, tidied: bool) -> None:
    texts = {
        0: ("=1+1", '=HYPERLINK("http://x","y")'),
        1: ("_x0041_", "a\x07b 😀\r\n\t中文"),
        2: ("+1", "-1"),
        3: ("#N/A", "'=1"),
    }
    found, (file,) = sheets(ballot(4), tmp_path, texts=texts)
    saved = office.fill(file, tmp_path / f"saved{ending}", 2, tmp_path, tidied=tidied)
    one = checked.check(returned.read(saved), found)
    assert not one.faults and not one.empty and len(one.rated) == len(found.lines)
    for each in one.rated.values():
        row = int(each.comment.removeprefix("=评语 ")) + 1
        assert each.scores == {"accuracy": office.score(row, 4), "fluency": office.score(row, 5)}
        assert found.lines[f"{found.evaluation}-1-{row - 1:05d}"] is each.line
    assert one.is_in_order is not tidied
    if ending == ".xlsx":
        book = load_workbook(saved)
        assert book["_meta"].sheet_state != "visible"
        assert book["评分"].data_validations.dataValidation
