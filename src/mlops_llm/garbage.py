"""Python's search for garbage, which is put off while a command starts.

What libraries make while they are imported lives as long as the process. To look through it again and again costs a fifth of
the start of a training (`benchmarks/start.py`), and afterwards half a second whenever Trainer collects. A young object that
nothing refers to is still found now and then, so that memory stays bounded while a command reads its rows.
"""

from __future__ import annotations

import gc
from functools import cache

_SELDOM = (100_000, 10, 10)
"""As `gc.set_threshold` takes them; Python's own are 700, 10, 10."""
_USUAL = gc.get_threshold()


def put_off() -> None:
    """Look for garbage seldom, until `settle` or `take_up`."""
    gc.set_threshold(*_SELDOM)


def take_up() -> None:
    """Look for it as Python does."""
    gc.set_threshold(*_USUAL)


def settle() -> None:
    """Say that the libraries are imported: what there is by now is not looked through any more."""
    take_up()
    _freeze()


@cache
def _freeze() -> None:
    gc.freeze()  # once: in a process with several jobs what an earlier one left would be kept for ever
