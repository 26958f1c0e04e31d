"""What a search for duplicates ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

PAIRS = pa.schema([("id", pa.int64()), ("equals", pa.int64()), ("score", pa.float64()), ("differ", pa.string())])
"""A row, the row it equals or resembles, how much (1 is the same), and in what they differ all the same."""


@dataclass(frozen=True)
class Found:
    """Duplicates among the rows of a dataset."""

    rows: int
    removed: pa.Table
    """`PAIRS`, in the order of rows: `equals` is always a row that stays."""
    different: pa.Table
    """`PAIRS` that look alike and stay both, with what they differ in."""
    unlisted: int = 0
    """More pairs of that sort than `different` lists."""
    review: pa.Table = field(default_factory=PAIRS.empty_table)
    """`PAIRS` somewhat below the threshold, the most similar first, for a person to look at."""
    unreviewed: int = 0
    """More pairs of that sort than `review` lists."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the search compared by and left out, as a person reads it."""
