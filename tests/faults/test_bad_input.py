"""A user's mistake is one line that says what, where and what to do; nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlops_llm.entry import launch
from mlops_llm.models import tiny
from mlops_llm.train.__main__ import STAGE
from tests.record import client, run_of

SALES = "+experiment=sft_sales"


@pytest.fixture
def refused(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that runs a train command which must be refused, and returns its one line."""

    def run(*words: str, code: int = 2, record: bool = False) -> str:
        capfd.readouterr()
        assert launch(STAGE, list(words)) == code
        err = capfd.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in err, err
        assert not (here / "outputs").exists() or code == 1
        assert record or not (here / "mlflow.db").exists()
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def folder(here: Path) -> Path:
    """A copy of the model `tiny`."""
    return Path(shutil.copytree(tiny.folder(), here / "model"))


def test_unknown_names_show_their_neighbour(refused: Callable[..., str]) -> None:
    assert refused(SALES, "trainer.max_stepz=5") == "Key 'max_stepz' not in 'Trainer' (did you mean max_steps?)"
    assert "unknown experiment 'sft_sale' (did you mean sft_sales?)" in refused("+experiment=sft_sale")
    assert "unknown algo 'sfd' (did you mean sft?)" in refused(SALES, "algo=sfd")
    assert "not in 'Train' (did you mean dataset?)" in refused("datasett=x")
    assert "learning_rate" in refused(SALES, "trainer.learning_rate=much")
    assert "dataset" in refused("model=tiny")


def test_what_is_no_setting_does_not_train(refused: Callable[..., str]) -> None:
    assert "Key 'foo' not in 'Train'" in refused(SALES, "+foo=1")
    assert "Key 'max_stepz' not in 'Trainer' (did you mean max_steps?)" in refused(SALES, "+trainer.max_stepz=1")
    assert "resume: names no run" in refused(SALES, "--resume")
    assert "there is no option '-x'" in refused(SALES, "-x")
    assert "write GROUP=CHOICE or KEY=VALUE" in refused(SALES, "peft=null")
    assert "write GROUP=CHOICE or KEY=VALUE" in refused(SALES, "=5")
    assert "name the choices: GROUP=A,B" in refused("-m", SALES, "peft=glob(*)")
    assert "model: names no model" in refused(SALES, "model=")


def test_numbers_that_do_not_fit(refused: Callable[..., str]) -> None:
    assert "take trainer.save_steps=50" in refused(SALES, "trainer.save_steps=60", "trainer.eval_steps=50")
    assert refused(SALES, "trainer.learning_rate=nan").startswith("trainer.learning_rate: is nan")
    assert refused(SALES, "trainer.batch_size=0").startswith("trainer.batch_size: is 0")
    assert refused(SALES, "holdout=1.5").startswith("holdout: is 1.5")
    assert refused(SALES, "peft=lora", "peft.r=0").startswith("peft.r: is 0")


def test_an_engine_for_a_method_that_does_not_sample(refused: Callable[..., str]) -> None:
    assert "rollout: algo=sft samples no answers; leave it out, or take algo=grpo" in refused(SALES, "rollout=vllm")
    assert "unknown rollout 'vlm' (did you mean vllm?)" in refused("+experiment=grpo_math", "rollout=vlm")


def test_model_folders(refused: Callable[..., str], folder: Path, here: Path) -> None:
    assert "there is no such model folder" in refused(SALES, "model=./nowhere")
    (here / "empty").mkdir()
    assert "config.json is missing" in refused(SALES, "model=./empty")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    assert "holds no weights (model.safetensors)" in refused(SALES, "model=./model")
    weights.write_bytes(whole[: len(whole) // 2])
    assert "is cut off" in refused(SALES, "model=./model")
    weights.write_bytes(b"no such thing")
    assert "no whole safetensors file" in refused(SALES, "model=./model")


def test_broken_tensors_fail_the_run(refused: Callable[..., str], folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    line = refused(SALES, "model=./model", code=1, record=True)
    assert "tensor model.norm.weight holds NaN or infinity" in line


def test_a_model_or_teacher_larger_than_memory(refused: Callable[..., str], folder: Path) -> None:
    weights = folder / "model.safetensors"
    rows, size = 8 * 10**9, 4_096 * 10**9
    big = json.dumps({"model.up_proj.weight": {"dtype": "F32", "shape": [rows, 128], "data_offsets": [0, size]}})
    weights.write_bytes(struct.pack("<Q", len(big)) + big.encode())
    os.truncate(weights, 8 + len(big) + size)  # it takes no room on the disk
    said = refused(SALES, "model=./model", "op=plan")
    assert said.startswith("./model: at least 16.4 TB") and said.endswith("no setting makes it fit: take a smaller model")
    assert "gradients and optimizer 12.3 TB" in said
    said = refused("+experiment=distill_sales", "algo.teacher=./model")
    assert said.startswith("./model: at least 4.1 TB of memory are needed (teacher 4.1 TB)")
    assert said.endswith("take a smaller teacher")


def test_pickled_weights_are_refused(refused: Callable[..., str], folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "model_load.allow_pickle=true" in refused(SALES, "model=./model")


def test_adapter_without_its_base(refused: Callable[..., str], here: Path) -> None:
    adapter = here / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(here / "gone"), "peft_type": "LORA"})
    )
    save_file({"a": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    line = refused(SALES, "model=./adapter")
    assert "the adapter's base" in line and "is gone" in line


def test_template_of_another_model(refused: Callable[..., str], folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|start_header_id|>{{ m['role'] }}{{ m['content'] }}<|eot_id|>{% endfor %}"
    )
    assert "uses <|eot_id|>, which the tokenizer does not know" in refused(SALES, "model=./model")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content.nix() }}")
    assert "the chat template fails" in refused(SALES, "model=./model")


def test_hub_without_network(refused: Callable[..., str]) -> None:
    assert "the hub cannot be reached" in refused(SALES, "model=Qwen/Qwen2.5-0.5B")
    assert "did you mean tiny?" in refused(SALES, "model=tinny")


def test_unknown_refs_name_what_there_is(refused: Callable[..., str]) -> None:
    assert "nothing is registered yet" in refused(SALES, "model=models:/sales@champion", record=True)
    assert "no run is called 'nix'" in refused(SALES, "model=runs:/nix/best", record=True)
    assert "names no version" in refused(SALES, "model=models:/sales", record=True)


def test_datasets(refused: Callable[..., str], here: Path) -> None:
    def data(content: str | bytes) -> str:
        path = here / "rows.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"dataset={path}"

    good = '{"prompt": "a", "response": "b"}\n'
    assert "did you mean sales_sft?" in refused("dataset=sales_sftt")
    assert "the file is empty" in refused(data(""))
    line = refused(data((good + good).encode() + '{"prompt": "价格"}'.encode("gb18030")))
    assert "line 3 is not utf-8" in line and "read.encoding=gb18030" in line
    assert "rows.jsonl line 2: is not JSON" in refused(data(good + "{oops\n"))
    assert "rows.jsonl line 2: has no field 'response'" in refused(
        data(good + '{"prompt": "a", "respons": "b"}\n'), "holdout=0"
    )
    line = refused(data(good + '{"prompt": "a", "response": 3}\n'), "holdout=0")
    assert "rows.jsonl line 2: field 'response' is a number, not a text" in line
    line = refused(data('{"prompt": "' + "长" * 400 + '", "response": "b"}\n'), "algo.max_tokens=64", "holdout=0")
    assert "no row has a token to train on" in line and "raise algo.max_tokens" in line


def test_output_that_cannot_be_written(refused: Callable[..., str], here: Path) -> None:
    (here / "file").write_text("")
    line = refused(SALES, f"output={here / 'file' / 'out'}")
    assert "file" in line and "choose another output folder" in line


def test_what_ends_before_it_begins_leaves_no_folder(refused: Callable[..., str], here: Path) -> None:
    refused(SALES, "output=a/b/c", "dataset=nowhere")
    refused(SALES, "output=a/b/d", "project=sk-abcdefghijklmnopqrstuvwx")
    assert not (here / "a").exists()
    (here / "kept").mkdir()
    refused(SALES, "output=kept/x/y", "dataset=nowhere")
    assert list((here / "kept").iterdir()) == []


def test_a_name_that_the_system_refuses_is_not_called_an_output_folder(refused: Callable[..., str]) -> None:
    line = refused(SALES, f"dataset={'x/' * 3000}")
    assert "File name too long" in line and "choose another output folder" not in line
    assert refused(SALES, f"dataset={'x' * 300}") == f"'{'x' * 40}'…: is longer than a name can be; check it"


def test_credentials_are_not_recorded(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "correct-horse-battery")
    for words in (["run_name=correct-horse-battery"], ["project=sk-abcdefghijklmnopqrstuvwx"], ["+judge.api_key=abcdefgh123"]):
        line = refused(SALES, *words)
        assert "_env=VARIABLE" in line and words[0].partition("=")[2] not in line


def test_best_metric_that_no_evaluation_gives(refused: Callable[..., str]) -> None:
    line = refused(SALES, "best.metric=eval/losss")
    assert line.startswith("best.metric: no evaluation gives 'eval/losss' (did you mean eval/loss?); one of: eval/loss, ")


def test_answers_that_cannot_be_scored(refused: Callable[..., str], jsonl: Callable[..., Path]) -> None:
    rows = jsonl({"prompt": f"问题 {place}", "response": f"回答 {place}"} for place in range(20))
    words = [f"dataset={rows}", "evaluate.every=50", "holdout=0"]
    assert "there is no metric 'blue' (did you mean bleu?)" in refused(*words, "evaluate.metric=[blue]")
    assert "score them: evaluate.every=50" in refused(SALES, "best.metric=score/bleu")
    assert "nothing is held out to ask; name rows: evaluate.dataset=REF" in refused(*words)
    line = refused(*words, "evaluate.dataset=ppo_general")
    assert line.startswith("ppo_general.json line 2: has no answer to compare with") and "evaluate.dataset=REF" in line
    line = refused(*words, "evaluate.dataset=sales_eval", "evaluate.max_new_tokens=500")
    assert "10 of 10 prompts" in line and "in the model's 512; take evaluate.max_new_tokens=" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+experiment=dpo_sales", "algo.beta=0"], "algo.beta: is 0"),
        (["+experiment=dpo_sales", "algo.loss=[sigmoyd]"], "there is no loss 'sigmoyd' (did you mean sigmoid?)"),
        (["+experiment=dpo_sales", "algo.loss=[sigmoid,sft]", "algo.loss_weights=[1]"], "gives 1 for 2 losses"),
        (["+experiment=dpo_sales", "algo.label_smoothing=0.1"], "is not used by sigmoid"),
        (["+experiment=dpo_sales", "algo.reference=base"], "no adapter is trained that could be left off"),
        (
            ["+experiment=dpo_sales", "peft=lora", "peft.dropout=0.1"],
            "compares the model with its reference, both without dropout",
        ),
        (["+experiment=dpo_sales", "dataset=sales_sft"], "holds rows of kind sft, and algo=dpo learns from dpo"),
        (["+experiment=sft_sales", "dataset=sales_dpo"], "take algo=dpo or algo=kto or algo=reward, or another dataset"),
        (["+experiment=sft_sales", "reward=[accuracy]"], "algo=sft samples no answers that could be rewarded"),
        (["+experiment=kto_sales", "trainer.batch_size=1"], "trainer.batch_size: is 1"),
        (["+experiment=grpo_math", "algo.generations=1"], "algo.generations: is 1"),
        (
            ["+experiment=grpo_math", "trainer.batch_size=12", "trainer.gradient_accumulation_steps=3"],
            "take trainer.batch_size=8 or trainer.batch_size=16",
        ),
        (
            ["+experiment=ppo_math", "algo.critic_first=400"],
            "so that the policy never learns; give fewer than",
        ),
        (["+experiment=sft_sales", "register_as=a/b"], "register_as: is 'a/b', which names no registered model"),
        (["+experiment=sft_sales", "peft=lora", "peft.targets=[q_proj,vproj]"], "no module 'vproj' (did you mean v_proj?)"),
        (["+experiment=grpo_math", "trainer.batch_size=10"], "take trainer.batch_size=8 or trainer.batch_size=16"),
        (
            ["+experiment=grpo_math", "trainer.batch_size=1024", "holdout=0.9"],
            "a round of sampling asks 128 prompts, and there are",
        ),
        (["+experiment=grpo_math", "algo.max_new_tokens=4000", "op=plan"], "leave no room for it in the model's 512; take"),
        (["+experiment=kto_sales", "algo.beta=nan"], "algo.beta: is nan; give a number above 0"),
        (["+experiment=grpo_math", "reward=[acuracy]"], "unknown reward 'acuracy' (did you mean accuracy?)"),
        (["+experiment=grpo_math", "reward=[]"], "algo=grpo learns from rewards, and none is named"),
        (["+experiment=grpo_math", "reward.accuracy.wait=1"], "Key 'wait' not in 'Accuracy'"),
        (
            ["+experiment=grpo_math", "reward.accuracy.pattern=x"],
            "not in 'Accuracy' (a setting of reward=format)",
        ),
        (
            ["+experiment=grpo_math", "reward.format.weight=2"],
            "is not chosen; choose it: reward=[accuracy,format]",
        ),
        (["+experiment=grpo_math", "algo=sft"], "'SFT' (a setting of algo=grpo and algo=ppo and algo=rloo)"),
        ([SALES, "dataset="], "dataset: names no dataset; there are: math_grpo"),
        ([SALES, "peft.adapter=keep"], "Key 'adapter' not in 'Full' (a setting of peft=lora and peft=qlora)"),
        ([SALES, "peft.adaptor=keep"], "Key 'adaptor' not in 'Full' (this choice of the group has no settings)"),
        (["+experiment=dpo_sales", "algo.loss=[sigmoid,sigmoid]"], "algo.loss: names one twice: sigmoid, sigmoid; name each"),
        (["+experiment=grpo_math", "reward=[http]"], "reward.http.url: is not given"),
        (["+experiment=grpo_math", "reward=[format]", "reward.accuracy.counts=any"], "reward.accuracy: is not chosen"),
        (["+experiment=grpo_math", "dataset=ppo_general"], "no row has a solution to compare"),
        (["+experiment=dpo_sales", "algo.beta=nan"], "algo.beta: is nan"),
        (["+experiment=dpo_sales", "algo.loss=[sigmoid,sft]", "algo.loss_weights=[0,0]"], "algo.loss_weights: are all 0"),
        (["+experiment=grpo_math", "algo.temperature=inf"], "algo.temperature: is inf"),
        (["+experiment=grpo_math", "reward=[accuracy,accuracy]"], "reward: names accuracy twice"),
        ([SALES, "trainer.weight_decay=-1"], "trainer.weight_decay: is -1"),
        ([SALES, "evaluate.samples=5"], "evaluate.samples: is given, but no answers are scored"),
        ([SALES, "peft=lora", "peft.adapter=merge"], "peft.adapter: is merge, and the start model is no adapter"),
        ([SALES, "holdout=0", "validation=null", "overfit.patience=3"], "overfit.patience: is given, and no evaluation tells"),
        (["+experiment=grpo_math", "reward.accuracy.weight=0"], "reward.accuracy.weight: is 0, so that nothing is learned"),
        (["+experiment=grpo_math", "trainer.spike=3"], "trainer.spike: is 3.0, and the loss of a policy moves around 0"),
        (
            ["+experiment=ppo_general", "peft=lora", "peft.dropout=0.1"],
            "compares the model with what sampled the answers, both",
        ),
        ([SALES, "evaluate.metric=bleu"], "evaluate.metric: is one value, and a list is wanted; write evaluate.metric=[A]"),
        (["+experiment=distill_sales", "algo.top_k=100000"], "algo.top_k: is 100000, and the vocabulary has"),
        (["+experiment=grpo_math", "reward={accuracy: 1}"], "reward.accuracy: is 1, and stands for several settings (weight, "),
        ([SALES, "trainer=5"], "gradient_checkpointing); give them one by one: trainer.SETTING=VALUE"),
        ([SALES, "project=", "op=plan"], "project: is '', which is no name of one folder"),
        ([SALES, "ema.decay=0.9", "ema.start_step=900"], "ema.start_step: is 900, and the training ends at step 400"),
    ],
)
def test_requests_that_do_not_fit(refused: Callable[..., str], words: list[str], said: str) -> None:
    assert said in refused(*words)


@pytest.mark.parametrize(("name", "stage"), [("merge_sales", "surgery"), ("rlhf_sales", "pipeline")])
def test_an_experiment_of_another_stage(refused: Callable[..., str], name: str, stage: str) -> None:
    line = refused(f"+experiment={name}", "op=plan")
    assert line == f"{name}: is an experiment of mlops_llm.{stage}; type: python -m mlops_llm.{stage} +experiment={name}"


def test_resume_of_what_cannot_be_resumed(
    here: Path, jsonl: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"问题 {place}", "response": f"回答 {place}"} for place in range(20)]
    data = jsonl(rows)
    words = [f"dataset={data}", "trainer.max_steps=2", "trainer.save_steps=1", "trainer.eval_steps=1", "samples.count=0"]
    assert launch(STAGE, [*words, "run_name=done"]) == 0
    line = refused_resume(capfd, "resume=done")
    assert "run 'done' is finished; to train further, start from it: model=runs:/done/last" in line
    assert "no run is called 'dine' (did you mean done?)" in refused_resume(capfd, "resume=dine")
    assert "leave out: seed=4" in refused_resume(capfd, "resume=done", "seed=4")
    assert "'done' is taken by finished run" in refused_resume(capfd, *words, "run_name=done", "output=other")
    client(here).set_terminated(run_of(client(here), "done").info.run_id, "KILLED")
    jsonl([{**row, "response": "别的"} for row in rows])
    line = refused_resume(capfd, "resume=done")
    assert "training rows changed since the run began (canonical digest" in line and "bring the old file back" in line


def refused_resume(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    capfd.readouterr()
    assert launch(STAGE, list(words)) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    return line
