"""A judge in a real command: ratings in the record, the template in the registry of prompts, the key nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.tracking import prompts
from mlops_llm.tracking.store import connect
from tests.chat_server import KEY, RATINGS, serve
from tests.record import client, run_of


@pytest.mark.slow
def test_a_model_is_judged(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(here / "cache"))
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    said = ""

    def judged(name: str, code: int, *words: str) -> Any:
        nonlocal said
        few = ["model=tiny", "dataset=sales_eval", "limit=4", "sampling.max_new_tokens=8", "publish.rows=0", f"run_name={name}"]
        key = ["judge.model=qwen-plus", "judge.api_key_env=DASHSCOPE_API_KEY"]
        assert launch(STAGE, [*few, "judge=rubric_zh", *key, *words]) == code
        out, err = capfd.readouterr()
        said += out + err
        file = here / f"outputs/{name}/result.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else err

    with serve() as server:
        url = f"judge.base_url={server.address}"
        server.always = "401"
        assert "check the key in judge.api_key_env (DASHSCOPE_API_KEY)" in judged("refused", 2, url)
        assert not (here / "mlflow.db").exists() and not (here / "outputs").exists()
        server.always = ""
        found = judged("judged", 0, url, "judge.price_in=1", "judge.price_out=2")
        assert found["scores"] == {f"judge/{name}": value for name, value in RATINGS.items()} | {"judge/overall": 4.25}
        assert found["judge calls"] == "4" and found["judge cost"] == "0.0008" and found["judged by"] == "judge-1"
        asked = len(server.calls)
        again = judged("again", 0, url, "judge.price_in=1", "judge.price_out=2")
        assert (
            again["scores"] == found["scores"] and len(server.calls) == asked and again["judgements known from before"] == "4"
        )

    store = client(here)
    runs = {name: run_of(store, name) for name in ("judged", "again")}
    versions = [run.data.tags["prompt"] for run in runs.values()]
    assert versions == ["rubric_zh/1", "rubric_zh/1"]
    assert runs["judged"].data.metrics["score/judge/fluency"] == 5 and runs["judged"].data.metrics["perf/judge_calls"] == 4
    first = store.get_prompt_version("rubric_zh", 1).template
    assert (
        "<回答>\n{response}\n</回答>" in first and "- accuracy (准确性)：" not in first and "- accuracy (准确性): 事实" in first
    )
    kept = [prompts.keep(connect(), "rubric_zh", text) for text in ("another", first, "another")]
    assert kept == [2, 1, 2], "an earlier text is no new version"
    assert [each.version for each in store.search_prompt_versions("rubric_zh")] == [2, 1]
    store.create_registered_model("taken")
    with pytest.raises(UserError, match="'taken' is a registered model"):
        prompts.keep(connect(), "taken", "text")
    assert [each.name for each in store.search_registered_models()] == ["taken"], "a prompt is no model"
    out, err = capfd.readouterr()
    assert KEY not in said + out + err
    assert not [path for path in here.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
