"""vLLM samples, with the weights of the model that is trained."""

from __future__ import annotations

import json
import math
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.endpoint import check_address
from mlops_llm.errors import UserError, first_line
from mlops_llm.inference import release

if TYPE_CHECKING:
    from mlops_llm.train.config import Train

CACHE = "VLLM_CPU_KVCACHE_SPACE"
"""Variable with the GiB in which vLLM keeps keys and values on a CPU."""
_LIBRARIES = 1_000_000_000
"""Bytes that vLLM's libraries take in a process."""
SERVE = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs --max-logprobs -1"
)


class Where(Enum):
    """Where vLLM runs."""

    colocate = "colocate"
    server = "server"


@component("rollout", "vllm")
@dataclass
class Vllm:
    """vLLM samples (Kwon et al. 2023, arXiv:2309.06180), with the weights that the model has in each round.

    Its probabilities differ a little from those of the training; GRPO and PPO correct for it (TRL's importance sampling).
    """

    evaluated: ClassVar[tuple[str, ...]] = (
        *(f"eval/sampling/sampling_logp_difference/{of}" for of in ("mean", "max")),
        *(f"eval/sampling/importance_sampling_ratio/{of}" for of in ("min", "mean", "max")),
    )

    mode: Where = Where.colocate
    """colocate runs in the training's process and shares its GPU or CPU; server is one that was started elsewhere, on GPUs."""
    url: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Address of the server, such as http://127.0.0.1:8000."""
    group_port: int = 51216
    """Port through which weights go to the server."""
    gpu_memory_utilization: float = 0.3
    """Share of the GPU's memory that a colocated vLLM takes; on a CPU the variable VLLM_CPU_KVCACHE_SPACE gives GiB, by default
    1."""
    tensor_parallel: int = 1
    """Training processes over which a colocated vLLM divides the model."""
    sleep: bool = False
    """A colocated vLLM gives its GPU memory back between two rounds, which takes time."""

    def __post_init__(self) -> None:
        """Check the ranges, and that the settings belong to the mode."""
        if not 0 < self.gpu_memory_utilization < 1:
            raise UserError(
                f"is {self.gpu_memory_utilization}", "rollout.gpu_memory_utilization", "give a share between 0 and 1"
            )
        if self.tensor_parallel < 1:
            raise UserError(f"is {self.tensor_parallel}", "rollout.tensor_parallel", "give a whole number from 1")
        if not 0 < self.group_port < 65536:
            raise UserError(f"is {self.group_port}", "rollout.group_port", "give a port from 1 to 65535")
        if self.mode is Where.server:
            if not self.url:
                raise UserError("is not given", "rollout.url", f"name the server, which is started with: {SERVE}")
            check_address(self.url, "rollout.url", "http://127.0.0.1:8000")
        elif self.url:
            raise UserError("belongs to a server", "rollout.url", "give rollout.mode=server too, or leave it out")

    def check(self, settings: Train) -> None:
        """See that vLLM is there and can get the weights.

        Raises:
            UserError: it is not, or cannot.
        """
        import torch

        if settings.peft.quantized:
            raise UserError("cannot take the weights of a base of 4-bit numbers", "rollout", "take rollout=hf, or peft=lora")
        cuda, processes = torch.cuda.is_available(), settings.distributed.count
        if processes % self.tensor_parallel:
            what = f"is {self.tensor_parallel}, which does not divide the training's {processes} processes"
            raise UserError(what, "rollout.tensor_parallel", "give a divisor")
        if processes > 1 and not cuda:
            raise UserError("shares no CPU with several processes", "rollout", "take rollout=hf, or leave distributed out")
        if not cuda:
            _cache()
        release.check(cuda, "rollout", "rollout=hf")
        if self.mode is Where.server:
            examine(str(self.url))
            if not cuda:
                what = "weights go to a server through NCCL, which needs a GPU here"
                raise UserError(what, "rollout.mode", "take rollout.mode=colocate, or rollout=hf")
        elif self.sleep and not cuda:
            raise UserError("is true, and there is no GPU whose memory could be given back", "rollout.sleep", "leave it out")

    def arguments(self, tokens: int) -> dict[str, Any]:
        """Keyword arguments of TRL's config classes.

        Args:
            tokens: most of a prompt and its answer together.
        """
        return {
            "use_vllm": True,
            "vllm_mode": self.mode.value,
            "vllm_server_base_url": self.url,
            "vllm_group_port": self.group_port,
            "vllm_gpu_memory_utilization": self.gpu_memory_utilization,
            "vllm_tensor_parallel_size": self.tensor_parallel,
            "vllm_enable_sleep_mode": self.sleep,
            "vllm_max_model_length": tokens,
        }

    def memory(self, weights: int, there: int) -> int:
        """Bytes of a colocated engine: its share of the GPU, or on a CPU its weights, its cache and its libraries."""
        import torch

        if self.mode is Where.server:
            return 0
        if torch.cuda.is_available():
            return int(self.gpu_memory_utilization * there)
        return weights + int(_cache() * 2**30) + _LIBRARIES

    def prepare(self) -> None:
        """Set what vLLM reads from the environment when it is imported, as far as the user has not."""
        import torch

        wanted = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the weights are handed over within the process
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        if not torch.cuda.is_available():
            wanted[CACHE] = "1"
        warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
        for name, value in wanted.items():
            os.environ.setdefault(name, value)

    def attach(self, trainer: Any) -> None:
        """Hand over the weights of an adapter without touching its base, and on a CPU in the way that vLLM can take them."""
        generation = trainer.vllm_generation
        if _plain(trainer.model) and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            generation._iter_named_params = partial(whole_weights, trainer.model)
        if self.mode is Where.colocate and trainer.accelerator.device.type == "cpu":
            generation.sync_weights = partial(_reload, generation)
        if trainer.accelerator.num_processes == 1:
            # TRL sets these for vLLM; the next training in this process would take itself for one of several.
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
                os.environ.pop(name, None)


def _cache() -> float:
    """GiB in which vLLM keeps keys and values on a CPU.

    Raises:
        UserError: the variable with them is no number.
    """
    said = os.environ.get(CACHE, "1")
    try:
        space = float(said)
    except ValueError:
        space = math.nan
    if not 0 < space < math.inf:
        raise UserError(f"is '{said}'", CACHE, f"set it to a number of GiB, such as 4: export {CACHE}=4")
    return space


def examine(url: str) -> None:
    """See that a vLLM server is there and can be given weights.

    Raises:
        UserError: nothing answers, or it was started without what this needs.
    """
    start = f"start it with: {SERVE}"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/server_info?config_format=json", timeout=10) as answer:
            told = json.loads(answer.read())["vllm_config"]
    except urllib.error.HTTPError as error:
        raise UserError(f"the server does not say how it was started (HTTP {error.code})", url, start) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"no vLLM server answers ({first_line(error)})", url, start) from error
    if not told.get("weight_transfer_config"):
        raise UserError("the server was started without --weight-transfer-config", url, start)
    if told.get("model_config", {}).get("logprobs_mode") != "processed_logprobs":
        raise UserError("the server was started without --logprobs-mode processed_logprobs", url, start)


def _plain(model: Any) -> bool:
    """Whether a model has a LoRA adapter of two matrices a layer and nothing else."""
    from peft import LoraConfig, PeftModel

    if not isinstance(model, PeftModel):
        return False
    how = model.peft_config["default"]
    return isinstance(how, LoraConfig) and not how.use_dora and not how.modules_to_save and how.bias == "none"


def whole_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """The weights of a model with its adapter, by the names that they have without it.

    TRL merges in place and takes the adapter out again, which leaves a rounding error in the base in each round, so that a
    checkpoint's adapter would lie on another base than it was trained on.
    """
    base = model.get_base_model()
    for name, parameter in base.named_parameters():
        owner, _, last = name.rpartition(".")
        if "lora_" in name:
            continue
        if not owner.endswith(".base_layer"):
            yield name, parameter.data
            continue
        layer = base.get_submodule(owner.removesuffix(".base_layer"))
        value = parameter.data
        if last == "weight":
            value = (value + layer.get_delta_weight("default").to(value.device)).to(value.dtype).detach()
        yield name.replace(".base_layer", ""), value


def _reload(generation: Any) -> None:
    """Give a colocated vLLM the weights through its own way of loading: on a CPU it keeps them packed, not as they were."""
    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=((name, value.clone()) for name, value in generation._iter_named_params()))
    generation.llm.reset_prefix_cache()
