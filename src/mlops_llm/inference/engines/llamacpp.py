"""llama.cpp (Gerganov et al.), which answers from a GGUF file as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError, need
from mlops_llm.inference.engine import Care, Failure, Generation, Request, Sampling, Session
from mlops_llm.inference.llamacpp import serving
from mlops_llm.inference.served import Served
from mlops_llm.models import packed
from mlops_llm.models.load import Files, ModelLoad

_HALF = "\ufffd"
_WINDOW = 4096
"""Tokens of a prompt and its answer where neither the model nor the user says."""


@component("engine", "llamacpp")
@dataclass
class LlamaCpp:
    """llama.cpp on a GGUF file (op=export_gguf): the answers that its users will get, in the file's own number format.

    Prompts are token ids of the template and tokenizer beside the file. Its arithmetic is its own: keys and values in float16.
    """

    parallel: int = 4
    """Answers in work at once."""
    threads: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Of the processor; null takes one for each of its cores."""
    max_model_len: Optional[int] = None  # noqa: UP045
    """Tokens of a prompt and its answer together; null is the model's own. Each answer in work reserves memory for as many."""
    gpu_layers: int = 0
    """Layers on a GPU, where the package xllamacpp was built for one."""

    family: ClassVar[str] = "llamacpp"
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("parallel", 1), ("threads", 1), ("max_model_len", 1), ("gpu_layers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"is {value}", f"engine.{name}", f"give a whole number from {least}")

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What may cut an answer."""
        return {"max_model_len": self.max_model_len}

    def check(self) -> None:
        """See that llama.cpp is installed.

        Raises:
            UserError: it is not.
        """
        need("xllamacpp", "surgery")

    @contextmanager
    def open(self, files: Files | None, how: ModelLoad, tokenizer: Any, window: int | None) -> Iterator[Session]:
        """Open the GGUF file of a folder.

        Raises:
            UserError: there is none, or llama.cpp cannot read it.
        """
        import psutil

        if files is None:
            raise ValueError("needs a model's files")
        path = packed.gguf_file(files.place.folder)
        if path is None:
            remedy = "export it with python -m mlops_llm.surgery op=export_gguf, or take engine=hf"
            raise UserError("is no GGUF file, and llama.cpp reads no other", files.place.ref, remedy)
        window = min(filter(None, (window, self.max_model_len)), default=_WINDOW)
        threads = self.threads or psutil.cpu_count(logical=False) or 1
        with serving(path, window, self.parallel, threads, self.gpu_layers) as server:
            yield LlamaCppSession(server, tokenizer, window, self.parallel)


class LlamaCppSession(Served):
    """A session with llama.cpp."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Ask several at once; an answer that is cut within a character shows no half of it."""
        for place, found in super().generate(requests, sampling, care):
            if isinstance(found, Generation) and found.cut:
                yield place, replace(found, text=found.text.rstrip(_HALF))
            else:
                yield place, found

    def drawn(self, sampling: Sampling) -> dict[str, Any]:
        """How answers are drawn, without what llama.cpp cuts off besides unless it is told not to."""
        return {**super().drawn(sampling), "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}

    def logprobs(self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care) -> NoReturn:
        """Refuse.

        Raises:
            UserError: always.
        """
        raise UserError(
            "llama.cpp's server does not tell how likely a given text is", "engine", "take engine=hf, which reads GGUF too"
        )
