"""Pairs of vectors at or above a cosine: all of them, or most of them where all would take hours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_llm.data.dedup.embedders import Vectors
from mlops_llm.errors import need

EXACT = 200_000
"""More rows than this are searched approximately: the exact search grows with the square (200,000 rows: minutes)."""
_ROWS, _COLUMNS = 1024, 8192
SLACK = 1e-6
"""Products of float32 vectors: equal ones may come out as 0.9999999."""

Ints = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of places, the earlier first, ordered by both."""

    first: Ints
    second: Ints
    score: npt.NDArray[np.float64]


Open = Callable[[], npt.NDArray[np.bool_]]
"""Which rows are still looked for; those that went meanwhile need no comparison."""


def exact(vectors: Vectors, threshold: float, open_: Open) -> Iterator[Pairs]:
    """All pairs, block by block of the upper triangle; memory is a block of 1024 x 8192 products."""
    for top in range(0, len(vectors), _ROWS):
        for left in range(top, len(vectors), _COLUMNS):
            alive = open_()
            rows = top + np.flatnonzero(alive[top : top + _ROWS])
            columns = left + np.flatnonzero(alive[left : left + _COLUMNS])
            products = vectors[rows] @ vectors[columns].T
            at, to = np.nonzero(products >= threshold - SLACK)
            first, second = rows[at], columns[to]
            later = second > first
            yield Pairs(first[later], second[later], np.minimum(products[at, to][later], 1).astype(np.float64))


def approximate(vectors: Vectors, threshold: float, open_: Open) -> Iterator[Pairs]:
    """Most pairs, by faiss: vectors are sorted into cells, and a row meets those of the nearest cells only.

    Measured at 100,000 rows: 197 of 200 pairs found.
    """
    need("faiss", "data")
    import faiss

    count, width = vectors.shape
    cells = max(1, int(4 * count**0.5))
    index: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    step = max(1, count // (40 * cells))
    index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    index.nprobe = min(cells, 8)
    for top in range(0, count, _ROWS):
        rows = top + np.flatnonzero(open_()[top : top + _ROWS])
        limits, score, second = index.range_search(np.ascontiguousarray(vectors[rows]), threshold - SLACK)
        first = np.repeat(rows, np.diff(limits.astype(np.int64)))
        later = second > first
        first, second, score = first[later], second[later], score[later]
        order = np.lexsort((second, first))
        yield Pairs(first[order], second[order], np.minimum(score[order], 1).astype(np.float64))
