"""Rows that say nearly word for word the same, told by vectors, with guards against what vectors do not see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_llm.console import Progress
from mlops_llm.data.dedup import neighbours
from mlops_llm.data.dedup.embedders import Embedder
from mlops_llm.data.dedup.found import Found
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.settle import Distinct, Settling, distinct
from mlops_llm.data.engine import Engine, Local
from mlops_llm.errors import UserError

UNKNOWN = 0.05
"""Share of unknown tokens above which vectors mean nothing."""
LONGEST = 2000
"""Characters; the vector of a longer text hardly moves when its last tenth changes."""
_BATCH = 256


def find(
    tables: Iterable[pa.Table],
    fields: Sequence[str],
    keep: Keep,
    threshold: float,
    embedder: Embedder,
    engine: Engine,
    limit: int = neighbours.EXACT,
    review: float = 1.0,
) -> Found:
    """Find rows whose vectors have at least the threshold's cosine, and whose guards agree.

    Rows over `LONGEST` characters and those with over 5 % unknown tokens are compared text for text only. Memory is that of
    the texts, about twice, and of the vectors (512 numbers a row by default: 2 GB a million).

    Args:
        tables: as of `texts.tables`.
        fields: what is compared, as one text.
        keep: which of several similar rows stays.
        threshold: least cosine; it means nothing without the model it was chosen for.
        embedder: the model.
        engine: where the steps run.
        limit: rows above which neighbours are searched approximately.
        review: least cosine of pairs below the threshold that are listed for a person to look at, up to `limit` rows.

    Raises:
        UserError: the embedder does not know the texts' language, or fails.
    """
    rows = distinct(tables, fields, keep, engine)
    settling = Settling(rows)
    lengths = np.array([len(str(text)) for text in settling.texts], np.int64)
    short = np.flatnonzero(lengths <= LONGEST)
    _check(settling, short, embedder)
    vectors, places, unknown = _embedded(settling, short, embedder, engine if embedder.travels else Local())
    many = len(places) > limit
    search, least = (neighbours.approximate, threshold) if many else (neighbours.exact, min(threshold, review))
    progress = Progress("comparing rows", len(places))
    for pairs in search(vectors, least, lambda: settling.stays[places]):
        first, second, score = places[pairs.first], places[pairs.second], pairs.score
        same = score >= threshold - neighbours.SLACK
        settling.pairs(first[same], second[same], score[same])
        if not same.all():
            settling.put_aside(first[~same], second[~same], score[~same])
        progress.at(int(pairs.first[-1]) + 1 if len(pairs.first) else 0)
    progress.close()
    return settling.found(_facts(rows, embedder, threshold, len(lengths) - len(short), unknown, many))


def _check(settling: Settling, short: Any, embedder: Embedder) -> None:
    """Refuse an embedder early, by a sample from everywhere."""
    sample = short[:: max(1, len(short) // _BATCH)][:_BATCH]
    if not len(sample):
        return
    tried = embedder.embed([settling.text(int(place)) for place in sample])
    if tried.tokens is None or tried.unknown is None:
        return
    share = float(tried.unknown.sum() / max(1, tried.tokens.sum()))
    if share > UNKNOWN:
        raise UserError(
            f"does not know {share:.0%} of these texts' tokens, so its vectors mean nothing here (at most {UNKNOWN:.0%})",
            embedder.id,
            "take an embedder for this language, or op=dedup_minhash",
        )


def _embedded(settling: Settling, short: Any, embedder: Embedder, engine: Engine) -> tuple[Any, Any, int]:
    """Vectors of the texts that can be embedded, their places, and how many could not."""
    texts = (_texts(settling, short[start : start + _BATCH]) for start in range(0, len(short), _BATCH))
    progress, done = Progress("embedding rows", len(short)), 0
    found = []
    for table in engine.map(partial(embedded, embedder=embedder), texts, kept=True):
        found.append(table)
        progress.at(done := done + len(table))
    progress.close()
    if not found:
        return np.zeros((0, 1), np.float32), np.zeros(0, np.int64), 0
    made = pa.concat_tables(found).combine_chunks()
    places, known = made["place"].to_numpy(), made["known"].to_numpy()
    vectors = made["vector"].chunk(0).flatten().to_numpy().reshape(len(made), -1)
    if (np.diff(places) > 0).all():
        return (vectors, places, 0) if known.all() else (vectors[known], places[known], int((~known).sum()))
    order = np.argsort(places)
    order = order[known[order]]
    return vectors[order], places[order], int((~known).sum())


def _texts(settling: Settling, places: Any) -> pa.Table:
    texts = pa.array([settling.text(int(place)) for place in places], pa.large_string())
    return pa.table({"place": pa.array(np.asarray(places, np.int64)), "text": texts})


def embedded(table: pa.Table, embedder: Embedder) -> pa.Table:
    """The step from `place`, `text` to `place`, `vector` and whether the embedder knows the text's tokens."""
    found = embedder.embed(table["text"].to_pylist())
    known = np.ones(len(table), bool)
    if found.tokens is not None and found.unknown is not None:
        known = found.unknown <= UNKNOWN * np.maximum(found.tokens, 1)
    numbers = pa.array(np.ascontiguousarray(found.vectors, np.float32).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(numbers, found.vectors.shape[1])
    return pa.table({"place": table["place"], "vector": vectors, "known": pa.array(known)})


def _facts(rows: Distinct, embedder: Embedder, threshold: float, long: int, unknown: int, approximate: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"compared by": f"cosine of {embedder.id}", "embedder": embedder.id, "threshold": threshold}
    if approximate:
        facts["search"] = "approximate (faiss IVF): a few pairs in a hundred may be missed, and none is listed to review"
    if long:
        facts[f"longer than {LONGEST} characters"] = f"{long} rows, compared text for text only"
    if unknown:
        facts["unknown tokens"] = f"{unknown} rows, compared text for text only"
    return facts
