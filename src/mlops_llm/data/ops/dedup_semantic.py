"""Near duplicates by vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data.dedup.operation import Dedup
from mlops_llm.errors import UserError
from mlops_llm.files import expanded

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_llm.data.dedup.embedders import Embedder
    from mlops_llm.data.dedup.found import Found
    from mlops_llm.data.engine import Engine

DEFAULT = "use"
THRESHOLD, REVIEW = 0.95, 0.8


@component("op", "dedup_semantic")
@dataclass
class DedupSemantic(Dedup):
    """Remove rows that say nearly word for word the same, by the cosine of their vectors.

    No model tells a paraphrase from a changed number or a negation, so this is never done by similarity alone: rows that
    differ in numbers, negations, opposites, the order of words, names, Latin words within Chinese, emoji, questions, tools,
    calls, weights or solution stay and are listed.
    """

    title: ClassVar[str] = "nearly the same words, by cosine"
    apart: ClassVar[str] = "similar_but_different.json"

    threshold: Optional[float] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Least cosine, from 0.5 to 1; null is 0.95 with the default embedder, any other needs its own."""
    review: Optional[float] = None  # noqa: UP045
    """Least cosine of pairs below the threshold that are listed for a person to look at (to_review.json); null is 0.8 with the
    default embedder and lists none with any other; 1 lists none."""
    embedder: str = DEFAULT
    """use (multilingual, in the extra `data`), a folder of sentence-transformers, or with op.base_url a server's model."""
    base_url: Optional[str] = None  # noqa: UP045
    """Address of an OpenAI-compatible embeddings server, such as http://127.0.0.1:8000/v1."""
    api_key_env: Optional[str] = None  # noqa: UP045
    """Name of the environment variable that holds the server's key."""
    timeout: float = 60.0
    """Seconds that one call of the server may take; what may pass is tried four times."""

    def __post_init__(self) -> None:
        """Check the ranges, and that the threshold was chosen for the embedder."""
        super().__post_init__()
        if self.threshold is not None and not 0.5 <= self.threshold <= 1:
            raise UserError(f"is {self.threshold}", "op.threshold", "give a number from 0.5 to 1")
        if self.review is not None and not 0.5 <= self.review <= 1:
            raise UserError(f"is {self.review}", "op.review", "give a number from 0.5 to 1")
        if self.threshold is None and not self._default:
            raise UserError(
                f"has no default for the embedder '{self.embedder}', because 0.95 means something else with each",
                "op.threshold",
                "look at the pairs first, e.g. op.threshold=0.95 op.dry_run=true",
            )
        if self.api_key_env and not self.base_url:
            raise UserError("is given without op.base_url", "op.api_key_env", "name the server")
        if not 0 < self.timeout < math.inf:
            raise UserError(f"is {self.timeout}", "op.timeout", "give seconds above 0")

    @property
    def _default(self) -> bool:
        return self.embedder == DEFAULT and not self.base_url

    def ready(self) -> None:
        """Check that the embedder is there."""
        self._model()

    def _model(self) -> Embedder:
        """Make the embedder.

        Raises:
            UserError: there is none of this name, or it cannot be used.
        """
        from mlops_llm.data.dedup.embedders import Folder, Use
        from mlops_llm.data.dedup.server import Server

        if self.base_url:
            if self.embedder == DEFAULT:
                raise UserError("names no model of the server", "op.embedder", "give the model's name as the server knows it")
            return Server(self.base_url, self.embedder, self.api_key_env or "", timeout=self.timeout)
        if self.embedder == DEFAULT:
            return Use()
        folder = expanded(self.embedder)
        if not folder.is_dir():
            remedy = f"name one, or {DEFAULT}, or a server's model with op.base_url"
            raise UserError(f"there is no folder '{self.embedder}'", "op.embedder", remedy)
        return Folder(folder.absolute())

    def find(self, tables: Iterable[pa.Table], engine: Engine) -> Found:
        """Find similar rows."""
        from mlops_llm.data.dedup import semantic

        threshold = THRESHOLD if self.threshold is None else self.threshold
        review = self.review or (REVIEW if self._default else 1.0)
        return semantic.find(tables, self.fields, self.keep, threshold, self._model(), engine, review=review)
