"""The state of every source of random numbers that a training draws from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """Whatever is drawn inside, afterwards the next numbers are those that would have come without it."""
    import numpy
    import torch

    plain, arrays = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        try:
            yield
        finally:
            random.setstate(plain)
            numpy.random.set_state(arrays)
