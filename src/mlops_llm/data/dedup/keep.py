"""Which of several equal rows stays."""

from __future__ import annotations

from enum import Enum


class Keep(Enum):
    """Which of several equal rows stays."""

    first = "first"
    longest = "longest"
