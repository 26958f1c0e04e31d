"""Duplicates text for text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlops_llm.component import component
from mlops_llm.data.dedup.operation import Dedup

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_llm.data.dedup.found import Found
    from mlops_llm.data.engine import Engine


@component("op", "dedup_exact")
@dataclass
class DedupExact(Dedup):
    """Remove rows that are the same; those that ask the same and answer otherwise are listed as conflicts and stay.

    The solution is always compared. With op.fields=[prompt] rows that ask the same are the same, whatever they answer.
    """

    title: ClassVar[str] = "the same texts"
    apart: ClassVar[str] = "conflicts.json"

    normalize: bool = False
    """Also take spellings of one text for the same: full-width forms (NFKC), white space, capital letters."""

    def ready(self) -> None:
        """Nothing is needed."""

    def find(self, tables: Iterable[pa.Table], engine: Engine) -> Found:
        """Find equal rows."""
        from mlops_llm.data.dedup import exact

        return exact.find(tables, self.fields, self.keep, self.normalize, engine)
