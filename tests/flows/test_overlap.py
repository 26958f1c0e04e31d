"""What an evaluation says of rows that its model was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_llm.data.ref import open_dataset
from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE
from tests.record import client, run_of


def test_a_score_is_told_with_what_it_is_without_rows_seen_in_training(
    trained: Path,
    jsonl: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path / "cache"))
    learned, chose, new = (open_dataset(name).rows for name in ("sales_sft", "sales_sft_val", "sales_eval"))
    rows = [*learned[:12], *chose[:6], *new[:12]]
    words = ["run_name=stamped", "model=runs:/first/last", f"dataset={jsonl(rows)}", "metric=[rouge]"]
    assert launch(STAGE, [*words, "sampling.max_new_tokens=6"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    prompts, of_chose = ({row["prompt"] for row in each} for each in (learned, chose))
    near = {each["prompt"] for each in chose[:6] if len(each["prompt"]) > 13 and any(each["prompt"] in one for one in prompts)}
    assert len(near) == 1  # it stands in a training row, behind a greeting
    rest = [place for place, row in enumerate(rows) if row["prompt"] not in prompts | near]
    assert len(rest) == 17
    store = client(trained)
    run = run_of(store, "stamped")
    columns, samples = _table(Path(store.download_artifacts(run.info.run_id, "eval_results.json")))
    seen, value = columns.index("seen in training"), columns.index("rouge_l")
    assert [row[0] - 1 for row in samples if not row[seen]] == rest
    assert run.data.metrics["score/rouge_l_unseen"] == pytest.approx(sum(samples[each][value] for each in rest) / len(rest))
    assert run.data.metrics["overlap/share"] == pytest.approx(1 - len(rest) / 30)
    assert f"({100 * (30 - len(rest)) / 30:.0f} % of items seen in training" in out
    columns, met = _table(Path(store.download_artifacts(run.info.run_id, "overlap.json")))
    use, run_name = columns.index("use"), columns.index("run")
    assert [row[0] - 1 for row in met if row[use] == "trained"] == [place for place in range(30) if place not in rest]
    chosen = [place for place, row in enumerate(rows) if row["prompt"] in of_chose]
    assert [row[0] - 1 for row in met if row[use] == "chose the checkpoint"] == chosen
    assert run.data.metrics["overlap/chosen_by"] == len({*chosen} & {*rest}) / 30 > 0
    assert {row[run_name] for row in met} == {"first"}


def _table(file: Path) -> tuple[list[str], list[list]]:
    found = json.loads(file.read_text("utf-8"))
    return found["columns"], found["data"]
