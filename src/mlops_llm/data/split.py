"""Parts of a dataset that its rows decide, in whatever order a file holds them."""

from __future__ import annotations

from collections.abc import Sequence

from mlops_llm import digest
from mlops_llm.data.read import Row, Source


def drawn_order(rows: Sequence[Row], seed: int) -> list[int]:
    """Row numbers in an order that the seed and the rows decide, not the file."""
    return sorted(range(len(rows)), key=lambda place: digest.text(f"{seed}:{digest.row(rows[place])}"))


def hold_out(source: Source, share: float) -> tuple[list[int], list[int]]:
    """Split row numbers into training and held-out ones by each row's digest.

    The same row falls on the same side in every file, order and run; duplicates stay together. The share is met on average.

    Args:
        source: the rows.
        share: held-out share, 0 to below 1.
    """
    sides = [is_held_out(row, share) for row in source.rows]
    return [place for place, out in enumerate(sides) if not out], [place for place, out in enumerate(sides) if out]


def is_held_out(row: Row, share: float) -> bool:
    """Whether `hold_out` holds a row out."""
    return int(digest.row(row)[:8], 16) < int(share * 2**32)
