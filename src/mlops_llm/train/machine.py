"""What this machine has, and how fast it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROCESS = 840_000_000
"""Bytes that a training on a CPU holds besides its models: imported libraries."""
SAMPLER = 150_000_000
"""Bytes that the libraries of a training take more which samples answers."""
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBER = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """A device to train on, as a prediction needs it."""

    name: str
    """The GPU, or the processor with its cores: runs with the same one correct each other's predictions."""
    memory: int
    """Bytes that this process can have, with those it has already."""
    base: int
    """Bytes that the process itself takes of them."""
    sampler: int
    """Bytes that it takes more where it samples answers."""
    speed: float
    """Floating point operations a second that training reaches."""
    layer: float
    """Seconds of a layer's forward pass besides its arithmetic."""
    token: float
    """Seconds of a sampled token besides its forward pass."""
    step: float
    """Seconds of an optimizer step besides its passes."""
    host: int
    """Bytes of the machine's own memory that this process can have; without a GPU the same as `memory`."""


def here() -> Machine:
    """This machine; its speeds are guesses, which history corrects."""
    import torch

    if torch.cuda.is_available():
        return Machine(device(), memory_there(), 0, 0, 5e13, 5e-5, 2e-3, 5e-3, host_there())
    speed, there = 5e10 * torch.get_num_threads(), host_there()
    return Machine(device(), there, PROCESS, SAMPLER, speed, 1e-3, 3e-3, 1e-2, there)


def device() -> str:
    """Name of what computes: the first GPU, or the processor with its cores."""
    import torch

    from mlops_llm.tracking.environment import cpu

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else cpu()


def memory_there() -> int:
    """Bytes of memory that this process can have, with those it has already; of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_reserved())
    return host_there()


def host_there() -> int:
    """Bytes of the machine's own memory that this process can have, with those it has already."""
    import psutil

    return host_free() + int(psutil.Process().memory_info().rss)


def host_free() -> int:
    """Bytes of the machine's own memory that this process can have besides those it has already."""
    import psutil

    return min([int(psutil.virtual_memory().available), *cgroup_rooms()])


def cgroup_rooms(root: Path = _CGROUPS, member: Path = _MEMBER) -> list[int]:
    """Bytes that are left to this process under each limit of a container or a job (Linux control groups, version 1 or 2).

    Pages of files that are only cached count as free.
    """
    lines = member.read_text().splitlines() if member.is_file() else []
    rooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, top = ("memory.max", "memory.current", "inactive_file"), root
        elif "memory" in controllers.split(","):
            names, top = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), root / "memory"
        else:
            continue
        rooms += [room for folder in _upwards(top, path) if (room := _room(folder, *names)) is not None]
    return rooms


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; in a container the group may be called what it is outside, and lie at the top."""
    folder = top / path.strip("/")
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _room(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    with suppress(OSError, ValueError):
        most = int((folder / limit).read_text())  # "max" is no limit, as is the 2^63 of version 1
        if most >= 2**60:
            return None
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - int((folder / usage).read_text()) + int(facts.get(cached, 0)))
    return None
