"""Memory: what is free, and what is said where an operation needs more."""

from __future__ import annotations

from collections.abc import Mapping

from mlops_llm import console
from mlops_llm.errors import UserError


def free() -> int:
    """Bytes that this process can still have."""
    from mlops_llm.train.machine import host_free

    return host_free()


def enough(needed: int, lighter: Mapping[str, int]) -> None:
    """See that an operation fits.

    Args:
        needed: bytes that it holds at once.
        lighter: what a person may give instead, and the bytes that it needs.

    Raises:
        UserError: there is less; what would fit is named.
    """
    there = free()
    if needed <= there:
        return
    fitting = [f"{words} ({console.size(size)})" for words, size in lighter.items() if size <= there]
    remedy = f"this fits: {', '.join(fitting)}" if fitting else "free some, or take a machine with more"
    raise UserError(f"{console.size(needed)} are needed and {console.size(there)} are free", "memory", remedy)
