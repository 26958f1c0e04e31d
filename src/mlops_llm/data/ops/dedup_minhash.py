"""Near duplicates by shared words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlops_llm.component import component
from mlops_llm.data.dedup.operation import Dedup
from mlops_llm.errors import UserError, need

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_llm.data.dedup.found import Found
    from mlops_llm.data.engine import Engine


@component("op", "dedup_minhash")
@dataclass
class DedupMinhash(Dedup):
    """Remove rows that share most of their words (MinHash and LSH for candidates, then their true Jaccard similarity).

    Rows that differ in numbers, negations, opposites, the order of words, names, Latin words within Chinese, emoji, questions,
    tools, calls, weights or solution stay and are listed.
    """

    title: ClassVar[str] = "nearly the same words"
    apart: ClassVar[str] = "similar_but_different.json"

    threshold: float = 0.8
    """Least share of common words (Jaccard), from 0.3 to 1."""
    ngram: int = 3
    """Characters that count as a word in scripts without spaces (Chinese, Japanese, Korean, Thai)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0.3 <= self.threshold <= 1:
            raise UserError(f"is {self.threshold}", "op.threshold", "give a number from 0.3 to 1")
        if self.ngram < 1:
            raise UserError(f"is {self.ngram}", "op.ngram", "give a number from 1")

    def ready(self) -> None:
        """Check that rensa is there."""
        need("rensa", "data")

    def find(self, tables: Iterable[pa.Table], engine: Engine) -> Found:
        """Find similar rows."""
        from mlops_llm.data.dedup import minhash

        return minhash.find(tables, self.fields, self.keep, self.threshold, self.ngram, engine)
