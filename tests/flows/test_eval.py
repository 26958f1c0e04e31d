"""Evaluations as commands: what is scored, what is written down of it, and what is never asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE
from mlops_llm.eval.benchmarks import running
from mlops_llm.eval.outcome import Sample, Score
from mlops_llm.inference.engine import Class, Failure
from tests.chat_server import GOOD, serve
from tests.record import artifacts_of, client, run_of

CANARY = f"canary-{0x5D1F:x}"
"""In no file of the checkout, of which a run keeps the changes."""
FEW = ["dataset=sales_eval", "limit=6", "sampling.max_new_tokens=12", "metric=[bleu,rouge,exact_match]"]


@pytest.fixture
def evaluated(
    trained: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Any]:
    """A function that runs an evaluation beside the training `first` and returns its result.json with what was said."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(tmp_path / "cache"))

    def run(name: str, *words: str) -> Any:
        capfd.readouterr()
        got = launch(STAGE, [f"run_name={name}", *words])
        out, err = capfd.readouterr()
        assert got == 0, out + err
        return json.loads((trained / f"outputs/{name}/result.json").read_text("utf-8")) | {"out": out + err}

    return run


def test_scores_stand_on_the_checkpoint_and_its_rows(evaluated: Callable[..., Any], trained: Path) -> None:
    result = evaluated("eval-first", "model=models:/sales@challenger", *FEW)
    assert set(result["scores"]) == {"bleu", "rouge_1", "rouge_2", "rouge_l", "exact_match"}
    assert result["samples"] == "6" and int(result["success"]) + int(result["failed"].partition(" ")[0]) == 6
    store = client(trained)
    run = run_of(store, "eval-first")
    assert run.data.tags["stage"] == "eval" and run.data.tags["model"] == "models:/sales@challenger"
    assert run.info.experiment_id == run_of(store, "first").info.experiment_id, "beside the training of the model"
    assert run.data.metrics["score/bleu"] == pytest.approx(result["scores"]["bleu"])
    low, high = (run.data.metrics[f"score/rouge_l_{end}"] for end in ("low", "high"))
    assert low <= result["scores"]["rouge_l"] <= high
    assert run.data.metrics["samples/total"] == 6
    (used,) = store.get_run(run.info.run_id).inputs.model_inputs
    best = store.get_model_version_by_alias("sales", "challenger")
    assert best.source == f"models:/{used.model_id}"
    found = {metric.key: metric for metric in store.get_logged_model(used.model_id).metrics}
    assert found["score/rouge_l"].value == pytest.approx(result["scores"]["rouge_l"])
    assert found["score/rouge_l"].dataset_name == "sales_eval[6]"
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("sales_eval[6]", found["score/rouge_l"].dataset_digest)
    table = json.loads(Path(store.download_artifacts(run.info.run_id, "eval_results.json")).read_text("utf-8"))
    place = table["columns"].index("rouge_l")
    assert sum(row[place] for row in table["data"]) / 6 == pytest.approx(result["scores"]["rouge_l"])
    kept = {"result.json", "eval.log", "eval_results.json", "evaluation.html", "overlap.json", "plots/scores.png"}
    assert kept <= artifacts_of(store, run)


def test_the_same_weights_are_not_asked_twice_whatever_they_are_called(
    evaluated: Callable[..., Any], trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = evaluated("asked", "model=runs:/first/best", *FEW)
    assert first["answers"] == "6 asked"
    assert launch(STAGE, ["resume=asked"]) == 2
    said = capfd.readouterr().err
    assert "run 'asked' is finished; give its command again: answers that are kept are not asked for twice" in said
    again = evaluated("known", "model=models:/sales@challenger", *FEW)
    assert again["answers"] == "6 known from before" and again["opening the model"] == "not needed"
    assert again["scores"] == first["scores"]
    assert evaluated("anew", "model=runs:/first/best", "cache=refresh", *FEW)["answers"] == "6 asked"
    assert evaluated("off", "model=runs:/first/best", "cache=off", *FEW)["scores"] == first["scores"]
    assert evaluated("seeded", "model=runs:/first/best", "seed=1", *FEW)["answers"] == "6 asked"
    assert evaluated("greedy", "model=runs:/first/best", "sampling.temperature=0", *FEW)["answers"] == "6 asked"
    assert (
        evaluated("still", "model=runs:/first/best", "sampling.temperature=0", "seed=9", *FEW)["answers"]
        == "6 known from before"
    )


def test_weights_from_elsewhere_enter_the_record_once_and_are_ranked(evaluated: Callable[..., Any], trained: Path) -> None:
    for name in ("outside", "outside-again"):
        evaluated(name, "model=tiny", *FEW)
    store = client(trained)
    runs = [store.get_run(run_of(store, name).info.run_id) for name in ("outside", "outside-again")]
    ids = {each.model_id for run in runs for each in run.inputs.model_inputs}
    (model,) = ids
    assert store.get_logged_model(model).tags["ref"] == "tiny"
    evaluated("inside", "model=runs:/first/best", "project=default", *FEW)
    experiment = run_of(store, "outside").info.experiment_id
    ranked = store.search_logged_models(
        [experiment], order_by=[{"field_name": "metrics.score/rouge_l", "ascending": False, "dataset_name": "sales_eval[6]"}]
    )
    values = [{metric.key: metric.value for metric in each.metrics}.get("score/rouge_l") for each in ranked]
    there = [value for value in values if value is not None]
    assert there == sorted(there, reverse=True)


def test_a_sample_is_drawn_by_its_seed_and_several_models_are_jobs_of_one_parent(
    evaluated: Callable[..., Any], trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset=sales_eval", "sample=3", "sampling.max_new_tokens=4", "metric=[length]"]
    rows = {}
    for name, seed in (("drawn", 0), ("drawn-again", 0), ("drawn-else", 1)):
        evaluated(name, "model=tiny", f"seed={seed}", *words)
        table = json.loads((trained / f"outputs/{name}/artifacts/eval_results.json").read_text("utf-8"))
        rows[name] = [row[0] for row in table["data"]]
    assert rows["drawn"] == rows["drawn-again"] != rows["drawn-else"]
    assert launch(STAGE, ["run_name=both", "models=[tiny,runs:/first/best]", *words]) == 0
    store = client(trained)
    parent = run_of(store, "both")
    jobs = [run_of(store, f"both-{number}") for number in (0, 1)]
    assert {job.data.tags["mlflow.parentRunId"] for job in jobs} == {parent.info.run_id}
    assert {job.info.experiment_id for job in jobs} == {parent.info.experiment_id}, "shown under their parent"
    assert [job.data.tags["model"] for job in jobs] == ["tiny", "runs:/first/best"]
    capfd.readouterr()
    assert launch(STAGE, ["run_name=late", "models=[tiny,runs:/first/bets]", *words]) == 2
    assert "bets" in capfd.readouterr().err and not (trained / "outputs/late").exists(), "before the first job begins"


def test_the_whole_conversation_of_a_chat_row_is_in_the_record(
    evaluated: Callable[..., Any], trained: Path, jsonl: Callable[..., Path]
) -> None:
    said = [("system", "你是客服"), ("user", "有货吗"), ("assistant", "有"), ("user", "多少钱")]
    row = {"messages": [{"role": role, "content": text} for role, text in said], "reference": "十元"}
    evaluated("chat", "model=tiny", f"dataset={jsonl([row])}", "sampling.max_new_tokens=4", "metric=[contains]")
    table = json.loads((trained / "outputs/chat/artifacts/eval_results.json").read_text("utf-8"))
    (prompt,) = (each[table["columns"].index("prompt")] for each in table["data"])
    assert prompt == "\n".join(f"[{role}] {text}" for role, text in said)


def test_what_a_set_is_for_stands_beside_its_scores(
    evaluated: Callable[..., Any], trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talks.jsonl").write_text(json.dumps({"prompt": "能开发票吗？", "reference": "可以"}) + "\n", "utf-8")
    told = ["kind=eval", "op.ability=对话质量", "op.method=[length]"]
    assert launch(DATA, ["op=add", f"dataset={tmp_path / 'talks.jsonl'}", *told]) == 0
    for name, metric in {"told": [], "named": ["metric=[contains]"]}.items():
        result = evaluated(name, "model=tiny", "dataset=talks", "sampling.max_new_tokens=4", *metric)
        assert result["ability"] == "对话质量" and "对话质量" in result["out"]
        assert run_of(client(trained), name).data.tags["ability"] == "对话质量"
        page = (trained / f"outputs/{name}/artifacts/evaluation.html").read_text("utf-8")
        assert "<dt>ability</dt><dd>对话质量</dd>" in page
    assert "ability" not in evaluated("other", "model=tiny", *FEW)


def test_without_outputs_only_numbers_are_kept(
    here: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A text that stands in every prompt, reference, answer and comment, and in what a server says of a failure."""
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(here / "cache"))
    given = tmp_path_factory.mktemp("given")
    prompts = [f"{CANARY} {place}" for place in range(4)] + [f"{CANARY} <<400>>"]
    rows = [{"prompt": each, "reference": f"{CANARY} yes", "metadata": {"topic": "ab"[len(each) % 2]}} for each in prompts]
    (given / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (given / "gsm8k").mkdir()
    (given / "gsm8k/test.jsonl").write_text(json.dumps({"question": CANARY, "answer": CANARY}) + "\n", "utf-8")

    def asked(one: Any, settings: Any, session: Any, file: Path, about: Any) -> running.Found:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CANARY, "utf-8")
        failure = Failure(Class.server, CANARY)
        samples = [
            Sample(place, CANARY, CANARY, (CANARY,), comment=f"{CANARY}: no", asked=CANARY, scores={"acc": 1.0}, failure=each)
            for place, each in enumerate((None, failure))
        ]
        return running.Found("gsm8k[2]", [Score("gsm8k[2]/acc", 1.0, 2)], samples, [], {}, [], {})

    monkeypatch.setattr(running, "_asked", asked)
    with serve() as server:
        server.say = lambda text: GOOD.replace("礼貌", CANARY) if "<回答>" in text else f"{CANARY} no"
        ends = [f"{part}.{key}" for part in ("engine", "judge") for key in (f"base_url={server.address}", "model=m")]
        words = ["engine=openai", f"dataset={given / 'rows.jsonl'}", "metric=[bleu]", "judge=rubric_zh", *ends]
        words += ["benchmark=[gsm8k]", f"benchmarks.data={given}", "benchmarks.few_shot=0", "benchmarks.chat_template=true"]

        def kept(name: str, *more: str) -> set[str]:
            """Names of the files outside the cache that hold the text."""
            assert launch(STAGE, [*words, f"run_name={name}", *more]) == 0
            there = (path for path in here.rglob("*") if path.is_file() and path.relative_to(here).parts[0] != "cache")
            return {path.name for path in there if CANARY.encode() in path.read_bytes()}

        assert kept("bare", "save_outputs=false") == set()
        out, err = capfd.readouterr()
        assert CANARY not in out + err and "refused" in out
        result = json.loads((here / "outputs/bare/result.json").read_text("utf-8"))
        assert result["failures"] == {"refused": 1, "server": 1} and result["scores"]["judge/fluency"] == 4.2
        run = run_of(client(here), "bare")
        assert {"evaluation.html", "plots/scores.png", "overlap.json"} <= artifacts_of(client(here), run)
        found = kept("whole")
        assert {"eval_results.json", "evaluation.html", "answers.jsonl", "ratings.jsonl"} <= found
        assert any(each.startswith("mlflow.db") for each in found), "the search sees traces"
