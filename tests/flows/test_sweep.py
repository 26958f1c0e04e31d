"""A sweep as a command: what it leaves, and that a killed one goes on."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from mlops_llm import digest
from mlops_llm.models import tiny
from mlops_llm.models.tiny import build, corpus
from tests.chat_server import serve
from tests.commands import start, wait_for
from tests.record import artifacts_of, checkpoints_of, client, run_of, steps_of
from tests.surgeries import command


def apart(folder: Path) -> None:
    """Two models on two sides of `tiny`, so that what lies between them is better than both, and rows that it knows."""
    import torch
    from safetensors.torch import load_file, save_file

    for sign, name in ((0.6, "a"), (-0.4, "b")):
        shutil.copytree(tiny.folder(), folder / name)
        (file,) = (folder / name).glob("*.safetensors")
        draw = torch.Generator().manual_seed(0)
        weights = {}
        for key, each in sorted(load_file(file).items()):
            noise = torch.randn(each.shape, generator=draw)
            weights[key] = each + sign * each.std() * noise if each.ndim == 2 else each
        save_file(weights, file, {"format": "pt"})
    known = list(dict.fromkeys(corpus.exchanges(0, build.EXCHANGES)))[:12]
    rows = (json.dumps({"prompt": each.prompt, "response": each.response}, ensure_ascii=False) for each in known)
    (folder / "known.jsonl").write_text("\n".join(rows) + "\n", "utf-8")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A folder in which a sweep was killed after some points, resumed, killed while it wrote the winner, and resumed again."""
    folder = tmp_path_factory.mktemp("swept")
    apart(folder)
    words = ["op=sweep", "models=[a,b]", "op.points=6", "dataset=known.jsonl", "metric=[perplexity]", "cache=off"]
    cache = {"MLOPS_LLM_CACHE": str(folder / "cache")}
    process = start(folder, *words, "output=best", "run_name=s", stage="surgery", env=cache)
    fourth = folder / "outputs" / "s" / "4" / "likelihoods.jsonl"
    wait_for(lambda: fourth.is_file() and fourth.read_text().count("\n") == 12, process)
    process.kill()
    process.communicate()
    assert not (folder / "best").exists()
    process = start(folder, "resume=s", stage="surgery", env=cache)
    wait_for(lambda: any(folder.glob(".best.*/*")), process)
    process.kill()
    out, _ = process.communicate()
    (folder / "said").write_text(out, "utf-8")
    (folder / "left").write_text("\n".join(each.name for each in folder.glob("*best*")), "utf-8")
    (folder / "said again").write_text(command(folder, "resume=s"), "utf-8")
    return folder


def opened(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("opening")]


def test_points_that_were_asked_are_not_asked_again(swept):
    said = (swept / "said").read_text("utf-8")
    assert opened(said) == [f"opening merge_slerp ratio {ratio} of a, b" for ratio in ("0.6", "0.8")]
    again = (swept / "said again").read_text("utf-8")
    assert not opened(again) and "recommended" in again and "certificate: passed" in again


def test_killed_while_it_was_written_the_winner_is_the_same_and_nothing_is_half_there(swept):
    assert (swept / "left").read_text("utf-8").startswith(".best."), "no folder that looks whole"
    assert [each.name for each in swept.glob("*best*")] == ["best"], "what was left is gone"
    store = client(swept)
    model = checkpoints_of(store, run_of(store, "s"))["merged"]
    assert model.tags["digest.weights"] == digest.weights(swept / "best") and model.status == "READY"
    assert json.loads((swept / "best/certificate.json").read_text("utf-8"))["verdict"] == "passed"
    assert len(steps_of(store, run_of(store, "s"), "sweep/perplexity")) == 6, "no point is told twice"


def test_every_point_is_a_run_within_the_sweep_and_only_the_winner_is_written(swept):
    store = client(swept)
    run = run_of(store, "s")
    assert run.info.status == "FINISHED" and {"sweep.json", "plots/sweep.png", "recipe.json"} <= artifacts_of(store, run)
    inner = store.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert {each.info.run_name for each in inner} == {f"s-{number}" for number in range(1, 7)}
    assert {each.info.status for each in inner} == {"FINISHED"}
    result = json.loads((swept / "outputs/s/result.json").read_text("utf-8"))
    scores = {each["point"]: each["score"] for each in result["points"]}
    by_name = {each.data.tags["point"]: each.data.metrics["score/perplexity"] for each in inner}
    assert by_name == pytest.approx(scores) and set(scores) == {"a", "b", *(f"ratio {r}" for r in (0.2, 0.4, 0.6, 0.8))}
    assert result["best"] == min(scores, key=lambda each: scores[each]) == "ratio 0.4" and result["gain"] is True
    model = checkpoints_of(store, run)["merged"]
    assert {metric.key: metric.value for metric in model.metrics}["score/perplexity"] == pytest.approx(scores["ratio 0.4"])
    assert len(store.get_run(run.info.run_id).inputs.model_inputs) == 2
    entered = {each.name for each in store.search_logged_models([run.info.experiment_id])}
    assert entered == {"merged", "a", "b"}, "no merge that was not written"
    told = json.loads((swept / "best/recipe.json").read_text("utf-8"))
    assert told["operation"] == "merge_slerp" and told["settings"]["weights"] == [0.4, 0.6] and told["run"] == "s"
    said = (swept / "said again").read_text("utf-8")
    assert "40" in said and "60" in said and "better than b, the better parent" in said


def test_the_winner_as_written_is_the_merge_and_scores_what_it_scored_in_memory(swept):
    said = command(swept, "op=merge_slerp", "models=[a,b]", "op.t=0.6", "output=again", "run_name=again")
    assert "certificate: passed" in said and digest.weights(swept / "best") == digest.weights(swept / "again")
    words = ["model=best", "dataset=known.jsonl", "metric=[perplexity]", "cache=off", "run_name=scored", "overlap.check=false"]
    command(swept, *words, stage="eval")
    found = json.loads((swept / "outputs/scored/result.json").read_text("utf-8"))["scores"]["perplexity"]
    scores = json.loads((swept / "outputs/s/result.json").read_text("utf-8"))["points"]
    assert found == pytest.approx(next(each["score"] for each in scores if each["point"] == "ratio 0.4"), rel=1e-6)


def test_a_parent_that_is_best_is_not_written(swept):
    words = ["op=sweep", "models=[a,b]", "dataset=known.jsonl", "metric=[perplexity]", "op.start=0.95", "op.points=2"]
    first = command(swept, *words, "run_name=near", "op.dry_run=true")
    assert "plan of sweep" in first and not (swept / "outputs/near").exists()
    said = command(swept, *words, "run_name=two", "output=two", "name=unneeded", "then.evaluate=true")
    assert "no gain over the parents: none of the merges is better than b" in said and not (swept / "two").exists()
    found = json.loads((swept / "outputs/two/result.json").read_text("utf-8"))
    assert found["ref"] == "b" and found["recommended"] == "b" and found["registered"] is found["output"] is None
    assert found["ignored"] == ["output=", "name=", "then.evaluate"]
    assert found["written"] == "nothing: b is the best as it is, so nothing was done for output=, name=, then.evaluate"
    store = client(swept)
    assert not store.search_registered_models() and not checkpoints_of(store, run_of(store, "two"))
    again = found["to register it"].partition(" (")[0].split()
    assert again[:3] == ["python", "-m", "mlops_llm.surgery"]
    command(swept, *again[3:], "output=kept", "run_name=kept")
    assert digest.weights(swept / "kept") == digest.weights(swept / "b")
    assert store.get_registered_model("unneeded").aliases.keys() == {"challenger"}


def test_what_is_within_chance_is_written_only_when_asked_for_and_moves_no_alias(swept):
    words = ["op=sweep", "models=[a,b]", "dataset=known.jsonl", "metric=[perplexity]", "op.points=3", "limit=4"]
    said = command(swept, *words, "run_name=chance")
    found = json.loads((swept / "outputs/chance/result.json").read_text("utf-8"))
    assert found["best"] == "ratio 0.5" and found["recommended"] is None
    assert found["ref"] is found["registered"] is found["output"] is None
    assert found["written"] == "nothing: ratio 0.5 is not known to be better than b"
    assert "best, within chance" in said and "recommended" not in said and "the same command with output=DIR" in said
    store = client(swept)
    assert not checkpoints_of(store, run_of(store, "chance")) and not (swept / "outputs/chance/merged").exists()
    said = command(swept, *words, "run_name=wanted", "output=wanted", "name=doubtful")
    assert "opening" not in said, "all was asked before, parents and merges"
    found = json.loads((swept / "outputs/wanted/result.json").read_text("utf-8"))
    assert found["written"].startswith(str(swept / "wanted")) and digest.weights(swept / "wanted") == found["digest.weights"]
    assert found["registered"] == "doubtful" and "a version without an alias" in said
    assert store.get_registered_model("doubtful").aliases == {}
    (version,) = store.search_model_versions("name = 'doubtful'")
    assert version.source == f"models:/{checkpoints_of(store, run_of(store, 'wanted'))['merged'].model_id}"
    again = shlex.split(found["to move the alias"])
    assert "op=merge_slerp" in again and "op.weights=[0.5,0.5]" in again and again[-1] == "name=doubtful"


def test_a_judge_may_decide(swept):
    with serve() as server:
        words = ["op=sweep", "models=[a,b]", "dataset=known.jsonl", "limit=2", "op.points=3", "sampling.max_new_tokens=4"]
        judge = ["judge=rubric_zh", f"judge.base_url={server.address}", "judge.model=any", "metric=[bleu]"]
        said = command(swept, *words, *judge, "run_name=judged", "output=judged")
        asked = len(server.calls)
    found = json.loads((swept / "outputs/judged/result.json").read_text("utf-8"))
    assert [each["score"] for each in found["points"]] == [4.25] * 3 and found["gain"] is False
    assert "judge/overall (higher is better)" in said.replace("\n", " ") and asked <= 6
