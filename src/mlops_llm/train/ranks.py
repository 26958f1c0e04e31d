"""The processes of a training as one of them sees them; a training in one process is the first of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def joined() -> bool:
    """Whether this process has found the others."""
    import torch.distributed as dist

    return bool(dist.is_available() and dist.is_initialized())


def count() -> int:
    """How many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if joined() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if joined() else 0


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def wait() -> None:
    """Wait until all are here."""
    import torch.distributed as dist

    if count() > 1:
        dist.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """The block is done by the first process alone, then by the others, who find what it left on disk."""
    if not first():
        wait()
    yield
    if first():
        wait()


def sums(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Element by element the sum over all processes; each gives as many numbers."""
    import torch
    import torch.distributed as dist

    if count() == 1 or not rows:
        return [list(row) for row in rows]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor([list(row) for row in rows], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    found: list[list[float]] = total.tolist()
    return found


def some(true: bool) -> bool:
    """Whether it is true in some process, so that all do the same."""
    return sums([[float(true)]])[0][0] > 0


def of_all(items: Sequence[Any]) -> list[Any]:
    """The items of all processes, one process after the other."""
    import torch.distributed as dist

    if count() == 1:
        return list(items)
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, list(items))
    return [item for each in found for item in each]


def average_gradients(parameters: Sequence[Any]) -> None:
    """Make each gradient the mean over all processes, for a model that no library wraps."""
    import torch.distributed as dist

    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= count()


def of_first(value: str) -> str:
    """What the first process says, so that all do the same."""
    import torch.distributed as dist

    if count() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]
