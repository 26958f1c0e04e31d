from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from mlops_llm import component
from mlops_llm.errors import UserError
from mlops_llm.train import distributed, launcher, node, nodes
from mlops_llm.train.config import PACKAGES, Train, Trainer
from mlops_llm.train.distributed import Distributed
from mlops_llm.train.ema import Ema
from mlops_llm.train.evaluate import Evaluate
from mlops_llm.train.sharing.ddp import Replicated
from mlops_llm.train.sharing.fsdp2 import Sharded
from mlops_llm.train.sharing.zero3 import Zero3

for package in PACKAGES:
    component.load(package)


def settings(algo: str = "sft", how: object = None, **values) -> Train:
    values = {"peft": component.build("peft", "none"), **values}
    return Train(dataset="x", algo=component.build("algo", algo), distributed=how or Replicated(2), **values)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gpus", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gpus", lambda: 0)


@pytest.mark.parametrize("algo", ["sft", "dpo", "kto", "distill", "grpo", "rloo", "ppo", "reward"])
def test_every_method_trains_in_copies_and_says_what_else_it_allows(algo):
    Distributed().check(settings(algo, Distributed()))
    Replicated(2).check(settings(algo))
    for name, how in (("fsdp2", Sharded(2)), ("zero3", Zero3(2))):
        allowed = type(component.build("algo", algo)).distributed
        if name in allowed:
            how.check(settings(algo, how))
        else:
            with pytest.raises(UserError, match=f"distributed={name}: algo={algo} cannot .*take .*none or distributed=ddp$"):
                how.check(settings(algo, how))


def test_a_base_of_4_bit_numbers_is_not_divided():
    with pytest.raises(UserError, match="peft=qlora: is not divided by distributed=zero3; take peft=lora, or"):
        Zero3(2).check(replace(settings(how=Zero3(2)), peft=component.build("peft", "qlora")))


@pytest.mark.parametrize(("place", "given"), [("ema.decay", {"ema": Ema(0.9)}), ("evaluate.every", {"evaluate": Evaluate(5)})])
def test_what_needs_the_whole_model_is_refused_where_nobody_has_it(place, given):
    with pytest.raises(UserError, match=f"{place}: is given, and with distributed=fsdp2"):
        Sharded(2).check(settings(how=Sharded(2), **given))
    Replicated(2).check(settings(**given))


def test_without_a_gpu_a_number_is_wanted(no_gpu):
    with pytest.raises(UserError, match="is null, and this machine has no GPU; say how many"):
        Replicated().require()
    Replicated(3).require()
    Sharded(2).require()
    with pytest.raises(UserError, match="needs GPUs, and this machine has none"):
        Zero3(2).require()
    parts = {"process": 10, "model": 30, "activations": 6}
    assert Replicated(3).spread(parts) == {"process": 30, "model": 90, "activations": 18} and Replicated().count == 1
    assert Sharded(3).spread(parts) == {"process": 30, "model": 30, "activations": 18}


def test_there_are_no_more_processes_than_gpus(two_gpus):
    with pytest.raises(UserError, match="processes: is 3, and this machine has 2 GPUs; give at most 2"):
        Sharded(3).require()
    Sharded().require()
    parts = {"process": 10, "model": 30, "activations": 6}
    assert Sharded().count == 2 and Sharded().spread(parts) == {"process": 10, "model": 15, "activations": 6}


@pytest.mark.parametrize(("field", "value"), [("processes", 0), ("port", 0), ("port", 65536), ("nodes", 0), ("restarts", -1)])
def test_numbers_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=f"distributed.{field}: is {value}"):
        Replicated(**{field: value})


def test_a_resumed_run_has_as_many_processes_as_it_began_with():
    Replicated(2).same("2")
    Replicated(2).same("")
    with pytest.raises(UserError, match="the run began with 4 processes, and here it has 2"):
        Replicated(2).same("4")


def trainer(count: int, kind: str) -> SimpleNamespace:
    return SimpleNamespace(accelerator=SimpleNamespace(num_processes=count, distributed_type=SimpleNamespace(name=kind)))


def test_processes_that_did_not_find_each_other_are_told():
    Replicated(2).confirm(trainer(2, "MULTI_CPU"))
    Distributed().confirm(trainer(1, "NO"))
    with pytest.raises(UserError, match=r"2 processes .*MULTI_CPU.* were asked for, and there are 1"):
        Replicated(2).confirm(trainer(1, "NO"))
    with pytest.raises(UserError, match=r"2 processes \(FSDP\) were asked for, and there are 2 \(MULTI_CPU\)"):
        Sharded(2).confirm(trainer(2, "MULTI_CPU"))
    with pytest.raises(UserError, match="2 processes were started from outside"):
        Distributed().confirm(trainer(2, "MULTI_CPU"))


def test_the_batch_of_a_step_is_that_of_all_processes():
    how = settings(trainer=Trainer(batch_size=4, gradient_accumulation_steps=3))
    assert Replicated(2).facts(how) == {"batch": "4 rows x 2 processes x 3 passes = 24 rows a step"}


def test_the_plan_tells_what_would_be_started(no_gpu):
    told = launcher.dry(settings(how=Zero3(2, port=29511), output="out"))
    assert told["starts"].startswith("python -m mlops_llm.train.elastic --nnodes=1 --nproc-per-node=2 --master-addr")
    assert told["starts"].endswith("=127.0.0.1 --master-port=29511 -m mlops_llm.train.worker out/ranks/settings.json")
    assert '"stage": 3' in told["with"] and "needs GPUs" in told["cannot run here"]
    assert launcher.dry(settings(how=Distributed())) == {}


def test_fsdp_is_composed_as_the_libraries_read_it():
    from accelerate import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

    made = object.__new__(TrainingArguments)  # a whole one would look for the other processes
    made.__dict__ |= Sharded(2).arguments(settings(trainer=replace(Trainer(), gradient_checkpointing=True)))
    plugin = FullyShardedDataParallelPlugin(**made._process_fsdp_args())
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.activation_checkpointing) == (2, True, True)
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type) and not made.gradient_checkpointing


@pytest.mark.parametrize("offload", [False, True])
def test_zero_is_composed_as_the_libraries_read_it(offload):
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    made = HfDeepSpeedConfig(Zero3(2, offload=offload).arguments(settings())["deepspeed"])
    assert made.is_zero3() and made.is_offload() is offload
    assert made.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save") is True


def test_a_step_of_several_machines_counts_the_processes_of_all(two_gpus):
    how = settings(how=Sharded(nodes=4), trainer=Trainer(batch_size=4))
    assert how.distributed.facts(how)["batch"] == "4 rows x 8 processes x 1 passes = 32 rows a step"
    assert how.distributed.count == 8 and how.distributed.on_each == 2
    parts = {"process": 10, "model": 80, "activations": 6}
    assert how.distributed.spread(parts) == {"process": 10, "model": 10, "activations": 6}
    assert Sharded(nodes=4, cpu_offload=True).offloaded(parts) == {"model": 20}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda: Replicated(2, nodes=2).require(), "nodes: is 2, and this command is in no SLURM job; name the other machines"),
        (lambda: Replicated(2, nodes=2, hosts=["a", "b"]), "nodes: is 2; give 3: this machine and a, b"),
        (lambda: Replicated(2, nodes=2, hosts=["-oProxyCommand=x"]), "hosts: '-oProxyCommand=x' is no machine"),
    ],
)
def test_machines_that_do_not_fit_are_told(no_gpu, monkeypatch, how, said):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=said):
        how()


def test_a_slurm_job_has_as_many_nodes(no_gpu, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    Replicated(2, nodes=2).require()
    with pytest.raises(UserError, match="nodes: is 3, and the SLURM job has 2 nodes; give at most 2"):
        Replicated(2, nodes=3).require()


def test_what_is_started_on_other_machines_has_no_secret_in_its_words(no_gpu, tmp_path, monkeypatch):
    how = Replicated(2, nodes=3, hosts=["gpu2", "gpu3"], address="192.0.2.7", port=29500, restarts=1)
    words = nodes.torchrun(how, "mine")
    assert words[3:9] == [
        "--nnodes=3",
        "--nproc-per-node=2",
        "--max-restarts=1",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=192.0.2.7:29500",
        "--rdzv-id=mine",
    ]
    env = {"A_KEY": "secret", "SLURM_NODEID": "0", "SSH_TTY": "x", "HOSTNAME": "here"}
    mine, second, third = nodes.starts(how, words, tmp_path, env)
    assert (mine.words[-1], mine.told) == (words[-1] + ",is_host=true", "")
    assert json.loads(second.told)["words"] == [*words[:-1], words[-1] + ",is_host=false"]
    assert [(each.words[-2], each.machine) for each in (second, third)] == [("gpu2", "gpu2"), ("gpu3", "gpu3")]
    assert "secret" not in str(second.words) and json.loads(second.told)["environment"] == {"A_KEY": "secret"}
    (alone,) = nodes.starts(Replicated(2, nodes=2), words, tmp_path, env)
    assert alone.words[:3] == ["srun", "--nodes=2", "--ntasks=2"] and json.loads(alone.told)["words"] == words


def test_a_node_has_what_was_sent_but_its_own_place_in_the_job():
    own = {"PATH": "/bin", "SLURM_NODEID": "1", "CUDA_VISIBLE_DEVICES": "4,5"}
    assert node.surroundings(own, {"PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "0"}) == own | {"PATH": "/usr/bin"}
    assert node.surroundings({"HOME": "/root"}, {"CUDA_VISIBLE_DEVICES": "0"}) == {"HOME": "/root", "CUDA_VISIBLE_DEVICES": "0"}


@pytest.mark.parametrize("how", ["the input ends", "SIGTERM", "the input ends after a SIGTERM that lets it save"])
def test_a_node_ends_what_it_started_when_nobody_wants_it_any_more(tmp_path, how):
    script = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    saves = how.endswith("save")
    told = {"environment": {}, "folder": str(tmp_path), "words": [sys.executable, "-c", script]}
    told |= {"needs": str(tmp_path), "saves": saves}
    agent = subprocess.Popen([sys.executable, "-P", node.__file__], stdin=subprocess.PIPE, text=True)
    assert agent.stdin is not None
    agent.stdin.write(json.dumps(told) + "\n")
    agent.stdin.flush()
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    pid = int((tmp_path / "pid").read_text())
    if saves:
        for number in node.STOPS:
            agent.send_signal(number)
            os.kill(pid, number)
        time.sleep(0.2)
        assert agent.poll() is None and psutil.pid_exists(pid)
    if how == "SIGTERM":
        agent.terminate()
    else:
        agent.stdin.close()
    assert agent.wait(30) == 129 and not psutil.pid_exists(pid)


def test_a_node_without_the_folder_says_so(tmp_path):
    told = {"environment": {}, "folder": str(tmp_path / "gone"), "words": [sys.executable], "needs": "/", "saves": False}
    done = subprocess.run(
        [sys.executable, "-P", node.__file__], input=json.dumps(told) + "\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "gone: No such file" in done.stderr
