"""Ports for servers of tests that begin to listen later, or again after their end."""

from __future__ import annotations

import os

from mlops_llm.ports import is_free

FIRST, EACH, WORKERS = 61000, 500, 9
"""The ports: above those that Linux gives to outgoing connections, and beside all that Ray and a tunnel over ssh take."""
_places = iter([(os.getpid() + place) % EACH for place in range(EACH)])  # two suites of one machine begin at different ones


def own_port() -> int:
    """A free port that this process has not given before, and that no other worker of pytest gives."""
    block = FIRST + EACH * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS)
    return next(block + place for place in _places if is_free(block + place))
