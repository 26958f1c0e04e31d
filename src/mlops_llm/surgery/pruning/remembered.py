"""What one process found of a model over the same rows: jobs of a batch that ask for it again do not wait for it again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
_MOST = 16
_known: dict[Hashable, Any] = {}


def remembered(key: Hashable, find: Callable[[], T]) -> T:
    """What `find` gives, found once for each key; the oldest of many is forgotten.

    Args:
        key: all that it depends on, by digests.
        find: finds it.
    """
    if key not in _known:
        while len(_known) >= _MOST:
            _known.pop(next(iter(_known)))
        _known[key] = find()
    found: T = _known[key]
    return found
