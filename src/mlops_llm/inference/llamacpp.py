"""A server of llama.cpp in this process, for as long as a `with` block lasts; it comes prebuilt in the package xllamacpp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.errors import UserError, first_line, need


@dataclass
class Address:
    """Where llama.cpp answers; its threads are this process's own, so that it cannot end before it."""

    address: str
    model: str = "gguf"
    key: str = ""
    log: Path | None = None

    def check(self) -> None:
        """Nothing can have ended."""


@contextmanager
def serving(path: Path, window: int, at_once: int = 1, threads: int = 1, gpu_layers: int = 0) -> Iterator[Address]:
    """Open a GGUF file, on this machine alone.

    Args:
        path: the file.
        window: tokens of a prompt and its answer together.
        at_once: answers in work at once; each has a window of its own.
        threads: of the processor.
        gpu_layers: that lie on a GPU, where the package was built for one.

    Raises:
        UserError: llama.cpp is not installed, or cannot read the file.
    """
    need("xllamacpp", "surgery")
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.verbosity = window * at_once, at_once, gpu_layers, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.warmup = False
    try:
        server = xllamacpp.Server(settings)
    except Exception as error:
        raise UserError(f"llama.cpp cannot read it ({first_line(error)})", str(path), "export it again") from error
    try:
        yield Address(server.listening_address)
    finally:
        del server
