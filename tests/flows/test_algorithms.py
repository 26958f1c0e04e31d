"""Training methods besides SFT, as real commands; numbers against an independent computation."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlops_llm import digest
from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind
from mlops_llm.data.ref import open_dataset
from mlops_llm.data.split import hold_out
from mlops_llm.eval.overlap import How, Overlap
from mlops_llm.eval.questions import question
from mlops_llm.eval.search import check
from mlops_llm.models import tiny
from mlops_llm.models.ref import resolve
from mlops_llm.tracking.lineage import trace
from mlops_llm.tracking.store import connect
from mlops_llm.train import examples
from mlops_llm.train.algorithms.distill import Distill
from mlops_llm.train.algorithms.dpo import DPO
from mlops_llm.train.algorithms.grpo import GRPO
from mlops_llm.train.algorithms.kto import KTO
from mlops_llm.train.algorithms.ppo import PPO
from mlops_llm.train.algorithms.reward import Reward
from mlops_llm.train.algorithms.sft import SFT
from mlops_llm.train.config import Train
from mlops_llm.train.rewards.accuracy import Accuracy
from mlops_llm.train.rewards.format import Format
from mlops_llm.train.samplers.hf import Hf
from tests.commands import ok, train
from tests.record import artifacts_of, checkpoints_of, client, run_of, steps_of

ADAPTER = ["peft=lora", "trainer.learning_rate=2e-3", "samples.count=0", "register_as=null"]
SHORT = ["trainer.max_steps=4", "trainer.eval_steps=2", "trainer.save_steps=2", "samples.count=0", "register_as=null"]


@pytest.fixture(scope="session")
def preferred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an SFT adapter and what DPO and KTO made of it and of `tiny`."""
    folder = tmp_path_factory.mktemp("preferred")
    ok(train(folder, "+experiment=dpo_sales", "run_name=dpo"))
    sft = ["+experiment=sft_sales", *ADAPTER, "trainer.max_steps=60", "trainer.save_steps=50", "run_name=sft"]
    ok(train(folder, *sft))
    ok(train(folder, "+experiment=dpo_sales", *ADAPTER, "model=runs:/sft/last", "trainer.max_steps=20", "run_name=chained"))
    return folder


def value(store: MlflowClient, run: str, key: str, step: int) -> float:
    found = store.get_metric_history(run_of(store, run).info.run_id, key)
    return next(metric.value for metric in found if metric.step == step)


def evaluated(run: Run) -> set[str]:
    """Names of the numbers that a run's evaluations gave."""
    return {name for name in run.data.metrics if name.startswith("eval/")}


def test_dpo_prefers_the_better_of_new_answers(preferred: Path) -> None:
    store = client(preferred)
    assert value(store, "dpo", "eval/loss", 0) == pytest.approx(math.log(2), abs=1e-6)
    assert value(store, "dpo", "eval/rewards/accuracies", 60) > 0.8
    assert value(store, "dpo", "eval/rewards/margins", 60) == pytest.approx(
        value(store, "dpo", "eval/rewards/chosen", 60) - value(store, "dpo", "eval/rewards/rejected", 60), abs=1e-4
    )
    run = run_of(store, "dpo")
    assert evaluated(run) == set(DPO().evaluated(Train()))
    for key in ("chosen", "rejected", "margins", "accuracies"):
        assert steps_of(store, run, f"train/rewards/{key}") == [10, 20, 30, 40, 50, 60]
    table = json.loads((preferred / "outputs/dpo/result.json").read_text())
    assert table["eval/rewards/accuracies"].endswith(f"{value(store, 'dpo', 'eval/rewards/accuracies', 60):.4f}")
    assert store.get_model_version_by_alias("sales_dpo", "challenger").run_id == run.info.run_id
    assert "samples.json" in artifacts_of(store, run)


def test_dpo_held_out_loss_is_that_of_the_formula(preferred: Path) -> None:
    """-log sigmoid(beta ((log p - log p_ref)(chosen) - (log p - log p_ref)(rejected))), Rafailov et al. 2023, equation 7."""
    import torch
    from transformers import AutoModelForCausalLM

    source = open_dataset("sales_dpo")
    pairs = examples.pairs(tokens.tokenizer("tiny"), source, hold_out(source, 0.1)[1], 512)

    def logp(folder: Path, prompt: list[int], answer: list[int]) -> float:
        with torch.no_grad():
            scores = models[folder](torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        return sum(float(scores[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))

    new, old = preferred / "outputs/dpo/checkpoint-60", tiny.folder()
    models = {folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in (new, old)}
    losses = []
    for pair in pairs:
        margin = sum(
            sign * (logp(new, pair.prompt, answer) - logp(old, pair.prompt, answer))
            for sign, answer in ((1, pair.chosen), (-1, pair.rejected))
        )
        losses.append(math.log1p(math.exp(-0.1 * margin)))
    assert sum(losses) / len(losses) == pytest.approx(value(client(preferred), "dpo", "eval/loss", 60), rel=1e-3)


def test_dpo_from_an_adapter_holds_to_that_adapter_and_not_to_its_base(preferred: Path) -> None:
    store = client(preferred)
    assert value(store, "chained", "eval/loss", 0) == pytest.approx(math.log(2), abs=1e-6)
    chained = run_of(store, "chained")
    last = checkpoints_of(store, run_of(store, "sft"))["checkpoint-60"]
    assert {model.tags["parent"] for model in checkpoints_of(store, chained).values()} == {last.model_id}
    kept = preferred / "outputs/chained/checkpoint-20"
    assert not (kept / "ref").exists() and (kept / "adapter_model.safetensors").is_file()
    words = ["+experiment=dpo_sales", *ADAPTER, *SHORT[:3], "model=runs:/sft/last"]
    ok(train(preferred, *words, "algo.reference=base", "run_name=based"))
    assert abs(value(store, "based", "eval/loss", 0) - math.log(2)) > 1e-3


def test_every_row_behind_a_chain_of_trainings_is_known(preferred: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(preferred)
    store = connect()
    lineage = trace(store, resolve("runs:/chained/last"))
    used = [(each.name, each.context, each.run) for each in lineage.datasets]
    assert used == [
        ("sales_dpo", "training", "chained"),
        ("sales_dpo", "validation", "chained"),
        ("sales_sft", "training", "sft"),
        ("sales_sft_val", "validation", "sft"),
    ]
    assert lineage.bases == ("tiny",) and not lineage.unknown
    first, chose, pairs = (open_dataset(name) for name in ("sales_sft", "sales_sft_val", "sales_dpo"))
    asked = [question(row, Kind.sft, "") for row in (*first.rows, *chose.rows)]
    asked += [question(row, Kind.dpo, "") for row in pairs.rows]
    learned = {row["prompt"] for row in first.rows} | {pairs.rows[place]["prompt"] for place in hold_out(pairs, 0.1)[0]}
    (got,) = check([asked], lineage, Overlap(), store)
    assert [one.text in learned for one in asked] == [bool(met and met.how >= How.question) for met in got.trained]
    assert all(each or other for each, other in zip(got.trained, got.chose, strict=True)) and not all(got.trained)


def test_an_adapter_is_merged_a_new_one_trained_and_the_run_resumed(preferred: Path) -> None:
    words = ["+experiment=dpo_sales", *ADAPTER, *SHORT[:3], "model=runs:/sft/last"]
    ok(train(preferred, *words, "peft.adapter=merge", "run_name=onto"))
    store = client(preferred)
    assert value(store, "onto", "eval/loss", 0) == pytest.approx(math.log(2), abs=1e-6)
    ended = checkpoints_of(store, run_of(store, "onto"))["checkpoint-4"].tags["digest.weights"]
    first = checkpoints_of(store, run_of(store, "sft"))["checkpoint-60"]
    origin = json.loads((preferred / "outputs/onto/checkpoint-4/mlops_llm.json").read_text())
    assert origin["base"] == f"models:/{first.model_id}" and origin["base.of"]["base"] == "tiny"
    store.set_terminated(run_of(store, "onto").info.run_id, "KILLED")
    shutil.rmtree(preferred / "outputs/onto/checkpoint-4")
    ok(train(preferred, "resume=onto"))
    run = run_of(store, "onto")
    assert run.data.tags["resume.verified"] == "true" and run.data.tags["digest.weights"] == ended
    assert run.data.tags["base.adapter"] == "merged, a new one is trained"


@pytest.mark.parametrize("precompute", ["true", "false"])
def test_dpo_of_all_weights_from_an_adapter_holds_to_the_merged_model(preferred: Path, precompute: str) -> None:
    words = ["+experiment=dpo_sales", *SHORT, "model=runs:/sft/last", f"algo.precompute={precompute}"]
    ok(train(preferred, *words, f"run_name=merged-{precompute}"))
    store = client(preferred)
    assert value(store, f"merged-{precompute}", "eval/loss", 0) == pytest.approx(math.log(2), abs=1e-6)
    if precompute == "false":
        ends = [value(store, f"merged-{each}", "eval/loss", 4) for each in ("true", "false")]
        assert ends[0] == pytest.approx(ends[1], rel=1e-5)


def test_kto_learns_from_labels_and_from_both_sides_of_pairs(tmp_path: Path, jsonl) -> None:
    said = ok(train(tmp_path, "+experiment=kto_sales", *SHORT, "run_name=pairs"))
    assert "268 rows (536 examples) to train on, 32 held out" in said
    pairs = open_dataset("sales_dpo").rows[:60]
    rows = [
        {"prompt": row["prompt"], "response": row[side], "label": side == "chosen"}
        for row in pairs
        for side in ("chosen", "rejected")
    ]
    words = ["+experiment=kto_sales", f"dataset={jsonl(rows)}", "trainer.max_steps=40", "run_name=labels", *ADAPTER]
    ok(train(tmp_path, *words))
    store = client(tmp_path)
    assert value(store, "labels", "eval/loss", 0) == pytest.approx(0.5, abs=1e-6)
    assert evaluated(run_of(store, "labels")) == set(KTO().evaluated(Train()))
    assert value(store, "labels", "eval/rewards/chosen", 40) > value(store, "labels", "eval/rewards/rejected", 40)


@pytest.fixture(scope="session")
def rewarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of GRPO."""
    folder = tmp_path_factory.mktemp("rewarded")
    words = ["trainer.batch_size=32", "trainer.max_steps=36", "trainer.eval_steps=12", "trainer.save_steps=12"]
    words += ["reward=[accuracy,format]", "reward.accuracy.counts=boxed", "reward.format.weight=0.25", "algo.table_steps=18"]
    ok(train(folder, "+experiment=grpo_math", *words, "run_name=grpo"))
    return folder


def test_grpo_raises_what_is_rewarded(rewarded: Path) -> None:
    store = client(rewarded)
    run = run_of(store, "grpo")
    right = [metric.value for metric in store.get_metric_history(run.info.run_id, "reward_accuracy")]
    assert len(right) == 36 and sum(right[-10:]) - sum(right[:10]) >= 10 * 0.15
    keys = run.data.metrics
    for key in ("reward/mean", "train/rewards/accuracy/mean", "train/rewards/format/mean", "train/frac_reward_zero_std"):
        assert steps_of(store, run, key) == list(range(1, 37)), key
    total = keys["train/rewards/accuracy/mean"] + 0.25 * keys["train/rewards/format/mean"]
    assert keys["reward/mean"] == pytest.approx(total, abs=1e-5)
    assert run.data.params["choice.reward"] == "accuracy,format" and run.data.params["reward.format.weight"] == "0.25"
    best = run_of(store, "grpo").data.tags["best.reason"]
    assert "eval/reward" in best and value(store, "grpo", "eval/reward", 36) > value(store, "grpo", "eval/reward", 0)
    given = Train(reward={"accuracy": Accuracy(), "format": Format()}, rollout=Hf())
    assert evaluated(run) == set(GRPO().evaluated(given))  # without zero_std: one answer each, no group to differ in


def test_grpo_keeps_tables_of_what_was_sampled(rewarded: Path) -> None:
    store = client(rewarded)
    run = run_of(store, "grpo")
    assert {path for path in artifacts_of(store, run) if path.startswith("completions/")} == {
        f"completions/step-{step:05d}.json" for step in (1, 18, 36)
    }
    table = json.loads(Path(store.download_artifacts(run.info.run_id, "completions/step-00018.json")).read_text("utf-8"))
    columns = table["columns"] if "columns" in table else list(table)
    assert columns == ["prompt", "completion", "reward accuracy", "reward format", "advantage"]


def test_a_recorded_run_of_rewards_is_rebuilt_from_the_record(rewarded: Path) -> None:
    store = client(rewarded)
    store.set_terminated(run_of(store, "grpo").info.run_id, "KILLED")  # as if it had died after its last step
    ok(train(rewarded, "resume=grpo"))
    assert run_of(store, "grpo").info.status == "FINISHED"


@pytest.mark.parametrize(("peft", "least"), [("none", 0.2), ("lora", 0.15)])
def test_ppo_raises_what_is_rewarded(tmp_path: Path, peft: str, least: float) -> None:
    words = ["trainer.max_steps=40", "trainer.eval_steps=20", "trainer.save_steps=20", "samples.count=0", f"peft={peft}"]
    words += ["trainer.learning_rate=2e-3"] if peft == "lora" else []
    ok(train(tmp_path, "+experiment=ppo_math", *words, "run_name=ppo"))
    store = client(tmp_path)
    run = run_of(store, "ppo")
    earned = [metric.value for metric in store.get_metric_history(run.info.run_id, "reward/mean")]
    assert sum(earned[-5:]) / 5 - sum(earned[:5]) / 5 >= least
    numbers = run.data.metrics
    for name in ("kl", "kl_coefficient", "policy_loss", "value_loss", "value_mean", "explained_variance"):
        assert math.isfinite(numbers[f"train/ppo/{name}"]), name
    assert {"train/entropy", "train/clip_ratio/region_mean"} <= set(numbers)
    assert evaluated(run) == set(PPO().evaluated(Train(reward={"accuracy": Accuracy()}, rollout=Hf())))
    assert value(store, "ppo", "train/ppo/kl", 1) == pytest.approx(0, abs=1e-4) and numbers["train/ppo/kl"] > 0
    assert value(store, "ppo", "train/ppo/value_mean", 1) == 0 and numbers["train/ppo/value_mean"] > 0.2
    assert (tmp_path / "outputs/ppo/checkpoint-40/critic/model.safetensors").is_file()
    assert not any("critic" in path for path in artifacts_of(store, run))
    assert "plots/reward.png" in artifacts_of(store, run) and run.data.tags["used.best.metric"] == "eval/reward"


def test_while_the_critic_learns_alone_the_policy_stays_and_a_broken_critic_ends_it(tmp_path: Path) -> None:
    words = ["+experiment=ppo_math", "trainer.batch_size=16", "trainer.eval_steps=2", "trainer.save_steps=2", "samples.count=0"]
    words += ["holdout=0.02"]
    alone = ["trainer.max_steps=3", "algo.critic_first=2", "trainer.weight_decay=0.1", "trainer.warmup_ratio=0"]
    ok(train(tmp_path, *words, *alone, "run_name=alone"))
    start, waited, moved = (
        digest.weights(each)
        for each in (tiny.folder(), tmp_path / "outputs/alone/checkpoint-2", tmp_path / "outputs/alone/checkpoint-3")
    )
    assert start == waited != moved
    done = train(tmp_path, *words, "trainer.max_steps=4", "algo.critic_learning_rate=1e30", "run_name=broken")
    assert done.returncode == 1 and "the training diverged: the loss is nan at step 2" in done.stderr, done.stderr
    assert not (tmp_path / "outputs/broken/checkpoint-2").exists()


def test_ppo_is_rewarded_by_a_server(tmp_path: Path) -> None:
    words = ["trainer.max_steps=4", "trainer.eval_steps=4", "trainer.save_steps=4", "trainer.batch_size=16"]
    ok(train(tmp_path, "+experiment=ppo_general", *words, "run_name=general"))
    store = client(tmp_path)
    assert 0 < value(store, "general", "eval/reward", 4) < 1
    assert store.get_model_version_by_alias("general", "challenger").run_id == run_of(store, "general").info.run_id


@pytest.fixture(scope="session")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reward model."""
    folder = tmp_path_factory.mktemp("rated")
    words = ["trainer.max_steps=40", "trainer.save_steps=40", "algo.center_rewards_coefficient=0.01"]
    ok(train(folder, "+experiment=reward_sales", *words, "run_name=rated"))
    return folder


def test_a_reward_model_scores_the_better_of_new_answers_higher(rated: Path) -> None:
    """Its loss: -log sigmoid(chosen - rejected) + 0.01 (chosen + rejected)^2, here of plain transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    source = open_dataset("sales_dpo")
    pairs = examples.pairs(tokens.tokenizer("tiny"), source, hold_out(source, 0.1)[1], 512)
    model = AutoModelForSequenceClassification.from_pretrained(rated / "outputs/rated/checkpoint-40").eval()
    with torch.no_grad():
        found = [
            [float(model(torch.tensor([[*pair.prompt, *answer]])).logits) for answer in (pair.chosen, pair.rejected)]
            for pair in pairs
        ]
    losses = [math.log1p(math.exp(bad - good)) + 0.01 * (good + bad) ** 2 for good, bad in found]
    store = client(rated)
    assert value(store, "rated", "eval/loss", 40) == pytest.approx(sum(losses) / len(losses), rel=1e-3)
    right = sum(good > bad for good, bad in found) / len(found)
    assert value(store, "rated", "eval/accuracy", 40) == pytest.approx(right) and right > 0.8
    run = run_of(store, "rated")
    assert evaluated(run) == set(Reward().evaluated(Train()))
    assert {model.tags["task"] for model in checkpoints_of(store, run).values()} == {run.data.tags["task"]} == {"reward"}
    table = json.loads(Path(store.download_artifacts(run.info.run_id, "pairs.json")).read_text("utf-8"))
    good, bad = (table["columns"].index(f"{side} after") for side in ("chosen", "rejected"))
    assert [[row[good], row[bad]] for row in table["data"]] == [pytest.approx(each, abs=1e-3) for each in found[:5]]
    assert "samples.json" not in artifacts_of(store, run)


def test_ppo_is_rewarded_by_a_reward_model(rated: Path) -> None:
    words = ["+experiment=ppo_general", "reward=[model]", "reward.model.ref=models:/sales_reward@challenger"]
    ok(train(rated, *words, "trainer.max_steps=2", "trainer.eval_steps=2", *SHORT[2:], "trainer.batch_size=16", "run_name=ppo"))
    store = client(rated)
    run = run_of(store, "ppo")
    table = json.loads(Path(store.download_artifacts(run.info.run_id, "completions/step-00001.json")).read_text("utf-8"))
    scores = [row[table["columns"].index("reward model")] for row in table["data"]]
    assert len(set(scores)) > 8 and run.data.metrics["reward/mean"] == pytest.approx(sum(scores) / len(scores), abs=1e-3)
    made = checkpoints_of(store, run_of(store, "rated"))["checkpoint-40"]
    assert run.data.tags["digest.reward.model"] == made.tags["digest.weights"]
    assert run.data.tags["reward.model.checkpoint"] == made.model_id and run.data.tags["task"] == "language"


def test_a_student_of_a_teacher_beats_one_of_labels_alone(tmp_path: Path, jsonl) -> None:
    ok(train(tmp_path, "+experiment=sft_sales", "trainer.max_steps=150", "samples.count=0", "run_name=teacher"))
    few = jsonl(open_dataset("sales_sft").rows[:40])
    words = [
        f"dataset={few}",
        "validation=sales_sft_val",
        "trainer.max_steps=40",
        "trainer.eval_steps=40",
        "trainer.save_steps=40",
    ]
    words += ["trainer.learning_rate=1e-3", "samples.count=0", "register_as=null"]
    ok(train(tmp_path, "+experiment=sft_sales", *words, "run_name=labels"))
    taught = ["+experiment=distill_sales", *words, "algo.teacher=runs:/teacher/last"]
    said = ok(train(tmp_path, *taught, "run_name=taught"))
    ok(train(tmp_path, *taught, "algo.top_k=64", "run_name=top"))
    store = client(tmp_path)
    ends = {run: value(store, run, "eval/loss", 40) for run in ("labels", "taught", "top")}
    assert ends["taught"] < ends["labels"] - 0.05 and ends["top"] < ends["labels"]
    assert "of the teacher with its last weights (loss of a held-out token" in said and "times the teacher's" in said
    run = run_of(store, "taught")
    assert evaluated(run) == set(Distill().evaluated(Train()))
    assert evaluated(run_of(store, "labels")) == set(SFT().evaluated(Train()))
    last = checkpoints_of(store, run_of(store, "teacher"))["checkpoint-150"]
    assert run.data.tags["digest.teacher"] == last.tags["digest.weights"]
    assert {"train/distill/soft_loss", "train/distill/hard_loss", "distill/teacher_loss"} <= set(run.data.metrics)
    assert value(store, "taught", "eval/loss", 40) == pytest.approx(run.data.metrics["distill/student_loss"], rel=0.05)


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    other = tmp_path / "other"
    shutil.copytree(tiny.folder(), other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["新"])
    tokenizer.save_pretrained(other)
    done = train(tmp_path, "+experiment=distill_sales", f"algo.teacher={other}")
    assert done.returncode == 2 and "has another vocabulary than the student (digest " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
