"""What goes wrong around a sweep, and around folders that are not empty."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.commands import SMOKE, ok, start, train, wait_for_step
from tests.record import checkpoints_of, client, run_of
from tests.sweeps import held

SHORT = [*SMOKE[:1], "trainer.max_steps=2", "trainer.save_steps=2", "trainer.eval_steps=2", "samples.count=0"]


def test_mistakes_end_a_sweep_before_it_begins(here: Path) -> None:
    for words, said in (
        (["seed=1,2", "op=plan"], "op=plan looks at one job"),
        (["seed=1,2", "hydra/launcher=joblibb"], "unknown hydra/launcher 'joblibb' (did you mean joblib?)"),
        (["seed=1,2", "hydra/launcher=submitit_slurm"], "submitit_slurm"),
        (["trainer.learning_rate=1e-3,-1"], "trainer.learning_rate: is -1"),
        (["trainer.max_stepz=1,2"], "did you mean max_steps?"),
    ):
        done = train(here, "-m", *SHORT, *words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (here / "mlflow.db").exists() and not (here / "outputs").exists()


def test_an_interrupted_job_is_resumed_and_the_sweep_concluded(here: Path) -> None:
    words = ["-m", *SMOKE[:1], "trainer.max_steps=80", "trainer.save_steps=10", "trainer.eval_steps=10", "samples.count=0"]
    process = start(here, *words, "seed=1,2", "run_name=sweep", "trainer.save_total_limit=1")
    wait_for_step(here, "sweep/0", 15, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and err.rstrip().endswith("resume=sweep-0")
    store = client(here)
    assert {run_of(store, name).info.status for name in ("sweep", "sweep-0")} == {"KILLED"}
    said = ok(train(here, "resume=sweep-0"))
    assert "sweep: 1 jobs" in said
    assert store.get_model_version_by_alias("sales", "challenger").run_id == run_of(store, "sweep-0").info.run_id
    sweep = run_of(store, "sweep")
    assert sweep.data.tags["best.job"] == "sweep-0" and sweep.info.status == "KILLED"  # its other job never began


def test_a_parallel_sweep_that_is_stopped_leaves_no_running_job_and_is_finished_job_by_job(here: Path) -> None:
    words = ["-m", *SMOKE[:1], "trainer.max_steps=60", "trainer.save_steps=10", "trainer.eval_steps=10", "samples.count=0"]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2", "peft=none", "run_name=sweep"]
    process = start(here, *words)
    for job in held(here, "sweep", 12, process):
        os.kill(job, signal.SIGCONT)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "sweep-1 was cut off too: resume=sweep-1" in err, err
    store = client(here)
    assert {run_of(store, name).info.status for name in ("sweep", "sweep-0", "sweep-1")} == {"KILLED"}
    ok(train(here, "resume=sweep-0"))
    ok(train(here, "resume=sweep-1"))
    sweep = run_of(store, "sweep")
    assert sweep.info.status == "FINISHED"
    assert sweep.data.metrics["eval/loss"] == float(sweep.data.tags["best.score"])


def test_a_second_sweep_into_a_folder_in_use_records_nothing(here: Path) -> None:
    said = ok(train(here, "-m", *SHORT, "peft=none,lora", "output=sweep", "register_as=null", "run_name=first"))
    assert [line.split()[:2] for line in said.splitlines() if "finished" in line and "none" in line] in (
        [["*", "first-0"]],
        [["first-0", "none"]],
    )
    done = train(here, "-m", *SHORT, "seed=1,2", "output=sweep", "register_as=null", "run_name=second")
    assert done.returncode == 2 and "the output folder is not empty" in done.stderr
    with pytest.raises(ValueError, match="not enough values"):
        run_of(client(here), "second")


def test_a_run_id_of_a_finished_run_is_not_written_over(here: Path) -> None:
    ok(train(here, *SHORT, "register_as=null", "run_name=one"))
    run = run_of(client(here), "one").info.run_id
    done = train(here, *SHORT, "register_as=null", "run_name=two", env={"MLFLOW_RUN_ID": run})
    assert done.returncode == 2 and "MLFLOW_RUN_ID: run 'one' is finished" in done.stderr


def test_a_folder_that_holds_something_is_left_alone(here: Path) -> None:
    mine = here / "mine" / "checkpoint-500" / "model.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = train(here, *SHORT, "output=mine")
    assert done.returncode == 2 and "the output folder is not empty" in done.stderr
    assert mine.read_text() == "mine"


def test_answers_are_not_drawn_from_broken_weights(here: Path) -> None:
    words = [
        "trainer.batch_size=16",
        "algo.max_new_tokens=8",
        "reward=[length]",
        "reward.length.most=6",
        "reward.length.margin=10",
    ]
    words += ["trainer.max_steps=6", "trainer.eval_steps=1", "trainer.save_steps=1", "samples.count=0", "holdout=0.02"]
    words += [
        "trainer.learning_rate=1e30",
        "trainer.max_grad_norm=0",
        "trainer.warmup_ratio=0.2",
        "trainer.schedule=cosine",
        "run_name=drawn",
    ]
    done = train(here, "+experiment=grpo_math", *words)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1, done.stderr
    assert "drawn: the training diverged: no answer can be drawn from the model after step" in done.stderr
    run = run_of(client(here), "drawn")
    step = int(run.data.tags["diverged.step"])
    assert run.data.tags["best.checkpoint"] == f"checkpoint-{step - 1}"
    table = json.loads((here / f"outputs/drawn/artifacts/spikes/step-{step:05d}.json").read_text())
    assert table["data"]


def test_a_training_that_diverges_fails_and_registers_nothing(here: Path) -> None:
    words = ["trainer.max_steps=20", "trainer.save_steps=1", "trainer.eval_steps=1", "samples.count=0"]
    # The learning rate is 0 in the first step, so that its checkpoint is a good one.
    done = train(here, SMOKE[0], *words, "trainer.learning_rate=1e30", "trainer.warmup_ratio=0.1", "run_name=far")
    assert done.returncode == 1 and done.stderr.count("error: ") == 1
    assert "far: the training diverged: the loss is nan at step 3; the last good checkpoint is checkpoint-1" in done.stderr
    store = client(here)
    run = run_of(store, "far")
    assert run.info.status == "FAILED" and not store.search_registered_models()
    assert run.data.tags["diverged.step"] == "3" and run.data.tags["best.checkpoint"] == "checkpoint-1"
    table = json.loads((here / "outputs/far/artifacts/spikes/step-00003.json").read_text())
    assert len(table["data"]) == 8 and all(row[0].startswith("sales_sft.jsonl line ") for row in table["data"])


def test_a_resumed_run_starts_from_the_weights_it_began_with(here: Path) -> None:
    """The alias moves on while the run is interrupted; the run does not follow it."""
    ok(train(here, *SHORT, "run_name=one"))
    words = [*SMOKE[:1], "trainer.max_steps=400", "trainer.save_steps=2", "trainer.eval_steps=2", "samples.count=0"]
    process = start(here, *words, "model=models:/sales@challenger", "peft=lora", "run_name=adapter", "register_as=null")
    wait_for_step(here, "adapter", 5, process)
    process.kill()
    process.communicate()
    store = client(here)
    base = run_of(store, "adapter").data.tags["digest.base"]
    ok(train(here, *SHORT, "seed=5", "run_name=two"))
    assert checkpoints_of(store, run_of(store, "two"))["checkpoint-2"].tags["digest.weights"] != base
    process = start(here, "resume=adapter")
    wait_for_step(here, "adapter", 9, process)
    process.terminate()
    process.communicate(timeout=60)
    run = run_of(store, "adapter")
    assert run.data.tags["digest.base"] == base and run.data.tags["base"] == "models:/sales@challenger"
    names = {(here / f"outputs/adapter/{name}/mlops_llm.json").read_text() for name in ("checkpoint-2", "checkpoint-6")}
    assert all(base in text for text in names)


def test_an_experiment_may_name_run_and_folder(here: Path) -> None:
    preset = here / "conf" / "experiment" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    first = "# python -m mlops_llm.train +experiment=mine\n"
    preset.write_text(f"{first}dataset: sales_sft\nrun_name: named\noutput: there\nregister_as: null\n")
    words = ["+experiment=mine", *SHORT[1:]]
    ok(train(here, *words))
    assert run_of(client(here), "named").data.tags["output"] == str(here / "there")
    assert (here / "there" / "checkpoint-2").is_dir() and not (here / "outputs").exists()
    preset.write_text(f"{first}dataset: sales_sft\nresume: named\n")
    done = train(here, *words)
    assert done.returncode == 2 and done.stderr == "error: resume: stands in a preset; give it on the command line, alone\n"
    preset.write_text(f"{first}dataset: sales_sft\nrun_name: many\noutput: sweep\nregister_as: null\n")
    ok(train(here, "-m", *words, "seed=1,2"))
    assert {run_of(client(here), name).info.status for name in ("many", "many-0", "many-1")} == {"FINISHED"}
    assert (here / "sweep" / "1" / "checkpoint-2").is_dir()
