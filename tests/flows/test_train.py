"""The commands of the train stage."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_llm import digest
from mlops_llm.data.ref import open_dataset
from mlops_llm.errors import UserError
from mlops_llm.models.ref import resolve
from mlops_llm.record import Checkpoint
from mlops_llm.tracking.run import MlflowRun, Opening
from mlops_llm.tracking.store import connect
from tests.commands import SMOKE, environment, ok, train
from tests.record import checkpoints_of, client, run_of, steps_of

SHORT = [*SMOKE[:1], "trainer.max_steps=2", "trainer.save_steps=2", "trainer.eval_steps=2", "samples.count=0"]


def test_refs_name_the_same_checkpoint(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = client(trained)
    run = run_of(store, "first")
    best = run.data.tags["best.checkpoint"]
    model = checkpoints_of(store, run)[best]
    wanted = model.tags["digest.weights"]
    for ref in (
        "models:/sales@challenger", "models:/sales/1", f"models:/{model.model_id}", "runs:/first/best",
        f"runs:/{run.info.run_id}/{best}", f"outputs/first/{best}",
    ):  # fmt: skip
        assert digest.weights(resolve(ref).folder) == wanted, ref
    last = max(checkpoints_of(store, run).values(), key=lambda each: int(each.params["step"]))
    assert digest.weights(resolve("runs:/first/last").folder) == last.tags["digest.weights"]


def test_training_goes_on_from_a_registered_model_with_an_adapter_and_from_the_adapter(trained: Path) -> None:
    """Full -> adapter on it -> the adapter trained further -> the adapter merged and all weights trained."""
    said = ok(train(trained, *SHORT, "model=models:/sales@challenger", "peft=lora", "register_as=null", "run_name=adapter"))
    tensors = digest.tensor_places(trained / "outputs/adapter/checkpoint-2/adapter_model.safetensors").values()
    assert f"{sum(math.prod(shape) for _, shape, _, _ in tensors):,} of them trained" in said
    store = client(trained)
    (adapter,) = checkpoints_of(store, run_of(store, "adapter")).values()
    assert run_of(store, "adapter").data.tags["base"] == "models:/sales@challenger"
    assert adapter.tags["parent"].startswith("m-") and int(adapter.tags["bytes"]) < 2_000_000
    ok(train(trained, *SHORT, "model=runs:/adapter/best", "peft=lora", "register_as=null", "run_name=further"))
    assert (trained / "outputs/further/checkpoint-2/adapter_model.safetensors").is_file()
    ok(train(trained, *SHORT, "model=runs:/adapter/best", "register_as=null", "run_name=merged"))
    assert (trained / "outputs/merged/checkpoint-2/model.safetensors").is_file()
    assert not (trained / "outputs/merged/checkpoint-2/adapter_config.json").exists()
    assert store.get_registered_model("sales").aliases == {"challenger": 1}


def test_chats_packing_and_whole_text(here: Path, jsonl: Callable[..., Path]) -> None:
    turns = [{"role": "system", "content": "你是客服"}, {"role": "user", "content": "有货吗"}]
    turns += [{"role": "assistant", "content": "有货"}, {"role": "user", "content": "多少钱"}]
    rows = [{"messages": [*turns, {"role": "assistant", "content": f"{price} 元"}]} for price in range(40)]
    data = jsonl(rows, "对话.jsonl")
    words = [f"dataset={data}", "trainer.max_steps=2", "trainer.save_steps=2", "trainer.eval_steps=1", "holdout=0.2"]
    plain = ok(train(here, *words, "run_name=plain"))
    packed = ok(train(here, *words, "algo.packing=true", "algo.loss_on=whole", "algo.max_tokens=128", "run_name=packed"))

    def tokens(text: str) -> int:
        return int(next(line for line in text.splitlines() if line.startswith("trained tokens")).split()[2])

    assert tokens(packed) > tokens(plain) * 2
    assert json.loads((here / "outputs/packed/result.json").read_text())["steps"] == 2


def test_columns_of_a_foreign_file_are_named_on_the_command_line(here: Path) -> None:
    (here / "客服.csv").write_text("问题,答案\n" + "".join(f"第{n}问,第{n}答\n" for n in range(9)), "gb18030")
    words = ["dataset=客服.csv", "read.encoding=gb18030", "read.columns={prompt:问题,response:答案}", "holdout=0"]
    assert "9 rows to train on" in ok(train(here, *words, "op=plan"))


def test_rows_that_are_too_long_are_counted(here: Path, jsonl: Callable[..., Path]) -> None:
    rows = [{"prompt": f"第{place}题", "response": "答" * (200 if place % 4 == 0 else 5)} for place in range(16)]
    words = [f"dataset={jsonl(rows)}", "holdout=0", "algo.max_tokens=40", "trainer.max_steps=1", "run_name=long"]
    done = train(here, *words)
    assert "4 rows were cut at algo.max_tokens" in done.stderr and "rows cut short: 4" in ok(done)
    run = run_of(client(here), "long")
    assert run.data.tags["rows.cut"] == "4"
    assert "nothing was held out" in run.data.tags["best.reason"]


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_multirun_nests_its_jobs_marks_the_best_and_survives_a_failing_one(here: Path, launcher: str) -> None:
    done = train(
        here, "-m", *SHORT, "trainer.learning_rate=1e-4,1e-2", "dataset=sales_sft,nix", f"hydra/launcher={launcher}",
        "run_name=sweep",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    store = client(here)
    parent = run_of(store, "sweep")
    assert parent.info.status == "FINISHED" and parent.data.tags["kind"] == "multirun"
    jobs = store.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    status = {job.info.run_name: job.info.status for job in jobs}
    assert status == {"sweep-0": "FINISHED", "sweep-1": "FAILED", "sweep-2": "FINISHED", "sweep-3": "FAILED"}
    assert "there is no such dataset" in run_of(store, "sweep-1").data.tags["run.error"]
    assert parent.data.tags["best.job"] == "sweep-2"
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("*")]
    assert "sweep-2" in line and "0.01" in line
    (version,) = store.search_model_versions("name = 'sales'")
    assert version.run_id == run_of(store, "sweep-2").info.run_id and "best of 4 jobs" in version.description


def test_mlflow_project_adopts_the_run_that_mlflow_opened(here: Path) -> None:
    root = Path(__file__).parents[2]
    overrides = "trainer.max_steps=2 trainer.save_steps=2 trainer.eval_steps=2 samples.count=0 run_name='from project'"
    overrides += f" output='{here / 'out'}'"  # the project's own folder is the current one there
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(root), "-e", "train", "--env-manager", "local",
         "--experiment-name", "projects", "-P", f"overrides={overrides}", "-P", "seed=3"],
        cwd=here, capture_output=True, text=True, timeout=300, check=False,
        env=environment({"MLFLOW_TRACKING_URI": f"sqlite:///{here / 'mlflow.db'}", "PATH": path}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    store = client(here)
    run = run_of(store, "from project")
    assert run.info.status == "FINISHED" and run.data.params["trainer.max_steps"] == "2"
    assert run.data.tags["seed"] == "3" and run.data.tags["mlflow.project.entryPoint"] == "train"
    assert set(checkpoints_of(store, run)) == {"checkpoint-2"}
    assert "lies in the experiment 'projects'" in done.stderr and "--experiment-name sales" in done.stderr


def test_plan_says_what_would_happen_and_records_nothing(here: Path) -> None:
    done = train(here, *SHORT, "op=plan", "evaluate.every=2", "evaluate.dataset=sales_sft", "evaluate.samples=3")
    said = ok(done)
    assert "500 rows to train on, 50 held out" in said and "steps" in said and "(uncorrected)" in said
    assert "answers scored 3 to sales_sft, every 2 steps (bleu, rouge)" in " ".join(said.split())
    assert "3 of 3 questions of" in done.stderr and "are also trained on: their scores tell nothing of new ones" in done.stderr
    assert not (here / "mlflow.db").exists() and not (here / "outputs").exists()


def test_what_was_predicted_is_recorded_with_what_it_took_and_corrects_the_next_plan(trained: Path) -> None:
    found = run_of(client(trained), "first").data.metrics
    assert found["predicted/raw_memory_bytes"] == found["predicted/memory_bytes"]  # the first run here
    assert found["predicted/memory_bytes"] == pytest.approx(found["real/memory_bytes"], rel=0.5)
    assert found["predicted/disk_bytes"] == pytest.approx(found["real/disk_bytes"], rel=0.02)
    assert found["predicted/seconds"] > 0 < found["real/seconds"]
    assert "(predicted " in json.loads((trained / "outputs/first/result.json").read_text("utf-8"))["time"]
    said = ok(train(trained, *SHORT, "op=plan"))
    peak, time = (next(line for line in said.splitlines() if word in line) for word in ("peak memory", "time"))
    assert "(corrected by " in peak and "(corrected by " in time


def test_save_total_limit_keeps_best_and_last_and_all_numbers(here: Path) -> None:
    words = [*SMOKE[:1], "trainer.eval_steps=2", "trainer.save_steps=2", "trainer.logging_steps=2", "samples.count=0"]
    ok(train(here, *words, "trainer.max_steps=10", "trainer.save_total_limit=2", "run_name=few"))
    store = client(here)
    models = checkpoints_of(store, run_of(store, "few"))
    assert len(models) == 5
    gone = {name for name, model in models.items() if model.tags.get("checkpoint.files") == "removed"}
    assert {folder.name for folder in (here / "outputs/few").glob("checkpoint-*")} == set(models) - gone
    assert len(gone) == 3 and all(any(m.key == "eval/loss" for m in models[name].metrics) for name in gone)


def test_what_the_registry_names_is_not_forgotten(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that somebody made by hand, without naming the run, protects its checkpoint too."""
    monkeypatch.chdir(trained)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ok(train(trained, *SHORT, "trainer.max_steps=4", "register_as=null", "run_name=kept"))
    store = client(trained)
    run = run_of(store, "kept")
    models = checkpoints_of(store, run)
    store.create_registered_model("by-hand")
    store.create_model_version("by-hand", f"models:/{models['checkpoint-2'].model_id}")
    opened = MlflowRun(connect(), run.info.run_id, run.info.experiment_id, Opening("train", "sales", "kept", trained))
    forgotten = {name: opened.forget(Checkpoint(name, 0, trained)) for name in models}
    assert forgotten == {"checkpoint-2": False, "checkpoint-4": True}
    assert digest.weights(resolve("runs:/kept/checkpoint-2").folder) == models["checkpoint-2"].tags["digest.weights"]
    with pytest.raises(UserError, match="were removed"):
        resolve("runs:/kept/checkpoint-4")


def test_a_training_that_learns_too_much_is_marked_and_may_stop(tmp_path: Path, jsonl) -> None:
    rows = jsonl(open_dataset("sales_sft").rows[:16])
    words = [
        "+experiment=sft_sales",
        f"dataset={rows}",
        "trainer.max_steps=60",
        "trainer.eval_steps=10",
        "trainer.save_steps=10",
    ]
    words += ["trainer.learning_rate=3e-3", "samples.count=0", "register_as=null"]
    said = train(tmp_path, *words, "run_name=marked")
    assert "warning: overfit from step 40 on: the held-out loss rose 3 times in a row" in said.stderr
    store = client(tmp_path)
    run = run_of(store, "marked")
    assert run.data.tags["overfit.step"] == "40" and "stopped.step" not in run.data.tags
    marked = {name for name, model in checkpoints_of(store, run).items() if "overfit" in model.tags}
    assert marked == {f"checkpoint-{step}" for step in (40, 50, 60)}
    said = ok(train(tmp_path, *words, "overfit.stop=true", "run_name=stopped"))
    assert "the training stops at step 40: it is overfit (overfit.stop)" in said
    stopped = run_of(store, "stopped")
    assert set(checkpoints_of(store, stopped)) == {f"checkpoint-{step}" for step in (10, 20, 30, 40)}
    assert steps_of(store, stopped, "eval/loss") == [0, 10, 20, 30, 40]
    store.set_terminated(stopped.info.run_id, "KILLED")  # as if it had died after its last step
    ok(train(tmp_path, "resume=stopped"))
    assert len(checkpoints_of(store, run_of(store, "stopped"))) == 4
    said = ok(train(tmp_path, *words, "overfit.patience=2", "run_name=patient"))
    assert "stops at step 30: no better value in 2 evaluations since step 10" in said
