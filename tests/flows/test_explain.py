"""Why two models differ, as a command says it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.models.ref import resolve
from tests.record import client, run_of


@pytest.fixture
def explained(
    beside: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[str, Any]]:
    """A function that explains two models beside the training `first`; it returns what was said, and the differences."""
    monkeypatch.chdir(beside)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path / "cache"))

    def run(name: str, *words: str) -> tuple[str, Any]:
        capfd.readouterr()
        assert launch(STAGE, ["op=explain", f"run_name={name}", *words]) == 0
        run_id = run_of(client(beside), name).info.run_id
        found = json.loads(Path(client(beside).download_artifacts(run_id, "differences.json")).read_text("utf-8"))
        return capfd.readouterr().out, found

    return run


def test_checkpoints_of_one_run_differ_in_step_and_weights_and_then_in_answers(explained: Callable[..., Any]) -> None:
    words = ["dataset=sales_eval", "limit=4", "metric=[bleu]", "sampling.max_new_tokens=8", "publish.rows=0"]
    said, found = explained("own", "models=[runs:/first/checkpoint-10,runs:/first/checkpoint-20]", *words)
    assert list(found) == ["weights"] and found["weights"]["rows"][0] == ["step", "10", "20"]
    assert "从第 10 步继续训练到第 20 步" in said and "answers of own-1 and own-2" in said


def test_a_copy_is_known_by_its_weights_and_what_is_known_of_one_alone_is_no_difference(
    explained: Callable[..., Any], tmp_path: Path
) -> None:
    copy = tmp_path / "copy[b]"
    shutil.copytree(resolve("runs:/first/last").folder, copy)
    said, found = explained("copied", f"models=[runs:/first/last,'{copy}']")
    assert found == {} and "both have the same weights" in said
    said, found = explained("stranger", "models=[runs:/first/last,tiny]")
    assert list(found) == ["training data", "rows", "weights"]
    assert "tiny: no run of the record made it, so that settings, code and environment cannot be compared" in " ".join(
        said.split()
    )
