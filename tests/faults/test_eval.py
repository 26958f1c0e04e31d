"""Evaluations that are stopped go on where they were; requests that do not fit are one line."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.inference import release
from mlops_llm.inference.engines import vllm
from tests.chat_server import KEY, serve
from tests.commands import start, wait_for
from tests.record import client, run_of

WORDS = ["model=tiny", "dataset=sales_eval", "limit=24", "sampling.batch_size=1", "sampling.max_new_tokens=48", "cache=off"]
WORDS += ["metric=[bleu,rouge]"]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(here: Path) -> None:
    def scores(name: str) -> dict[str, float]:
        found: dict[str, float] = json.loads((here / f"outputs/{name}/result.json").read_text("utf-8"))["scores"]
        return found

    def ended(*words: str) -> str:
        process = start(here, *words, stage="eval", fresh=words == ("resume=killed",))
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        return out + err

    file = here / "outputs/killed/answers.jsonl"
    process = start(here, *WORDS, "run_name=killed", stage="eval")
    wait_for(lambda: file.is_file() and file.read_bytes().count(b"\n") >= 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = file.read_bytes().splitlines()
    with file.open("ab") as cut:
        cut.write(b'{"place": 7, "text": "half a li')
    said = ended("resume=killed")
    assert f"{24 - len(before)} asked, {len(before)} of this run before it stopped" in said
    lines = file.read_bytes().splitlines()
    assert lines[: len(before)] == before and sorted(json.loads(line)["place"] for line in lines) == list(range(24))
    ended(*WORDS, "run_name=whole")
    assert scores("killed") == scores("whole")
    store = client(here)
    assert run_of(store, "killed").info.status == "FINISHED"


def test_what_is_seen_late_to_be_the_users_to_mend_is_one_line_and_exit_2(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)
    monkeypatch.setattr(vllm, "SERVE", "mlops_llm.no_such_server")
    monkeypatch.setattr(release, "check", lambda *_: None)

    def line(*words: str, code: int) -> str:
        capfd.readouterr()
        assert launch(STAGE, [*words, "dataset=sales_eval", "limit=4", "sampling.max_new_tokens=4"]) == code
        err = capfd.readouterr().err
        (found,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert "Traceback" not in err and KEY not in err
        return found

    with serve() as server:
        server.always = "401"
        to = [f"engine.base_url={server.address}", "engine.model=m", "engine.api_key_env=CANARY_KEY"]
        assert "check the key in engine.api_key_env (CANARY_KEY)" in line("engine=openai", *to, "metric=[bleu]", code=2)
        server.always = "500"
        failing = line("engine=openai", *to, "metric=[bleu]", "care.retries=0", "run_name=failing", code=1)
        assert "4 requests in a row failed, the last as server" in failing
    assert "vLLM does not start" in line("model=tiny", "engine=vllm", "metric=[bleu]", "run_name=late", code=2)
    assert run_of(client(here), "late").info.status == "FAILED"


@pytest.fixture
def refused(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that runs an evaluation which must be refused, and returns its one line."""

    def run(*words: str) -> str:
        capfd.readouterr()
        assert launch(STAGE, list(words)) == 2
        err = capfd.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in err, err
        assert not (here / "outputs").exists() and not (here / "mlflow.db").exists()
        return lines[0].removeprefix("error: ")

    return run


def test_requests_that_do_not_fit(refused: Callable[..., str], jsonl: Callable[..., Path]) -> None:
    bare = jsonl([{"prompt": "一"}, {"prompt": "二", "reference": "好"}], "bare.jsonl")
    empty = jsonl([{"prompt": "一", "reference": ""}], "empty.jsonl")
    pictures = jsonl(
        [{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}], "p.jsonl"
    )
    long = jsonl([{"prompt": "长" * 3000, "reference": "好"}, {"prompt": "短", "reference": "好"}], "long.jsonl")
    table = [
        (["model=tiny"], "dataset: names no rows"),
        (["metric=[bleuu]", "dataset=sales_eval"], "did you mean bleu?"),
        (["metric=[bleu]", "benchmark=[gsm8k]"], "metric: is given, but there are no rows"),
        (["model=tinny", "dataset=sales_eval"], "tinny"),
        (["dataset=sales_evil"], "did you mean sales_eval?"),
        ([f"dataset={bare}", "metric=[bleu]"], "metric.bleu: needs a 'reference', which 1 of 2 rows lack (bare.jsonl line 1)"),
        ([f"dataset={empty}", "metric=[bleu]"], "reference"),
        ([f"dataset={bare}"], "neither references nor labels"),
        ([f"dataset={pictures}", "metric=[length]"], "text"),
        ([f"dataset={long}", "metric=[bleu]"], "1 of 2 prompts"),
        (["dataset=sales_eval", "limit=0"], "limit: is 0"),
        (["dataset=sales_eval", "limit=100000"], "limit: is 100000"),
        (["dataset=sales_eval", "limit=2", "sample=2"], "give one of them"),
        (["dataset=sales_eval", "sampling.temperature=-1"], "sampling.temperature: is -1"),
        (["dataset=sales_eval", "sampling.top_p=0"], "sampling.top_p: is 0"),
        (["dataset=sales_eval", "care.timeout=0"], "care.timeout: is 0"),
        (["dataset=sales_eval", "engine=hff"], "did you mean hf?"),
        (["models=tiny", "dataset=sales_eval"], "models"),
    ]
    wrong = [(words, got) for words, said in table if said not in (got := refused(*words))]
    assert not wrong
