"""Rows that share most of their words (Chinese, Japanese and Korean: most of their character n-grams).

MinHash signatures (Broder 1997; rensa's R-MinHash) put rows into buckets (locality-sensitive hashing in bands); rows that share
a bucket are candidates, and the Jaccard similarity of a candidate pair is computed from the texts, never taken from signatures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlops_llm.console import Progress
from mlops_llm.data.dedup.found import Found
from mlops_llm.data.dedup.guards import CJK
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.dedup.settle import Settling, distinct
from mlops_llm.data.engine import Engine
from mlops_llm.data.texts import bare

PERMUTATIONS = 128
RECALL = 0.98
"""Least probability that a pair at the threshold becomes a candidate."""
CROWD = 16
"""In a bucket of more rows, each is paired with the first and its neighbour only; what is left meets in a next round."""
_BATCH = 4096
_UNSPACED = f"{CJK}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_PIECES = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_RUN = re.compile(f"[{_UNSPACED}]")
_BUCKETS = pa.schema([("place", pa.int64()), ("bucket", pa.uint64())])
Ints = npt.NDArray[np.int64]
_CANDIDATES = pa.schema([("first", pa.int64()), ("second", pa.int64()), ("crowded", pa.bool_())])


class Bands(NamedTuple):
    """How a signature is cut: a pair of similarity s is a candidate with probability 1 - (1 - s^rows)^bands."""

    bands: int
    rows: int


def bands(threshold: float) -> Bands:
    """The bands with most rows (fewest false candidates) that find a pair at the threshold with `RECALL`."""
    for rows in range(PERMUTATIONS, 1, -1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return Bands(count, rows)
    return Bands(PERMUTATIONS, 1)


def shingles(text: str, size: int) -> list[str]:
    """What a text is compared by: its words in small letters, and of scripts without spaces all n-grams of characters.

    Args:
        text: any text.
        size: characters in an n-gram; a shorter run counts as one.
    """
    found = []
    for piece in _PIECES.findall(text.lower()):
        if len(piece) > size and _RUN.match(piece):
            found += [piece[start : start + size] for start in range(len(piece) - size + 1)]
        else:
            found.append(piece)
    return found


def find(tables: Iterable[pa.Table], fields: Sequence[str], keep: Keep, threshold: float, size: int, engine: Engine) -> Found:
    """Find rows whose shingles have at least the threshold's Jaccard similarity, and whose guards agree.

    Memory is that of the texts, about twice, and 16 bytes a band of each row.

    Args:
        tables: as of `texts.tables`.
        fields: what is compared, as one text.
        keep: which of several similar rows stays.
        threshold: least Jaccard similarity.
        size: characters in an n-gram.
        engine: where the steps run.
    """
    rows = distinct(tables, fields, keep, engine)
    settling = Settling(rows)
    cut = bands(threshold)
    parts = _batches(rows.rows.select(["place", "text"]))
    signed = list(_seen("signatures", engine.map(partial(signatures, size=size, cut=cut), parts), len(rows.rows)))

    @lru_cache(maxsize=8192)
    def grams(place: int) -> frozenset[str]:
        return frozenset(shingles(settling.text(place), size))

    crowded = bool(signed)
    while crowded:
        before = int(settling.stays.sum())
        pairs = _once(list(engine.by_key(candidates, signed, "bucket")))
        _verify(pairs, settling, grams, threshold)
        crowded = bool(pairs["crowded"].to_numpy().any()) and int(settling.stays.sum()) < before
        if crowded:
            stays = settling.stays
            signed = [table.filter(pa.array(stays[table["place"].to_numpy()])) for table in signed]
    facts = {"compared by": f"words, and {size} characters of scripts without spaces (Jaccard)", "threshold": threshold}
    return settling.found(facts)


def signatures(table: pa.Table, size: int, cut: Bands) -> pa.Table:
    """The step from `place`, `text` to `place`, `bucket`: a row for each band of each text that has shingles."""
    from rensa import RMinHash

    grams = [shingles(bare(text), size) for text in table["text"].to_pylist()]
    filled = np.array([bool(each) for each in grams], bool)
    matrix = RMinHash.digest_matrix_from_token_sets([each for each in grams if each], PERMUTATIONS, 42)
    digests = np.array(matrix.to_rows(), np.uint64).reshape(-1, PERMUTATIONS)
    cells = digests[:, : cut.bands * cut.rows].reshape(-1, cut.bands, cut.rows)
    mixed = np.broadcast_to(np.arange(1, cut.bands + 1, dtype=np.uint64) * _PRIME, cells.shape[:2]).copy()
    for row in range(cut.rows):  # FNV-like, with a shift that carries high bits down
        mixed = (mixed ^ cells[:, :, row]) * _PRIME
        mixed ^= mixed >> np.uint64(29)
    places = np.repeat(table["place"].to_numpy()[filled], cut.bands)
    return pa.table([pa.array(places), pa.array(mixed.reshape(-1))], schema=_BUCKETS)


_PRIME = np.uint64(0x9E3779B97F4A7C15)


def candidates(table: pa.Table) -> pa.Table:
    """The step from `place`, `bucket` to pairs of places (the earlier first) that share a bucket, each once, ordered."""
    buckets, places = table["bucket"].to_numpy(), table["place"].to_numpy()
    order = np.argsort(buckets)
    ordered = buckets[order]
    twice = np.zeros(len(ordered) + 1, bool)
    twice[1:-1] = ordered[1:] == ordered[:-1]
    order = order[twice[1:] | twice[:-1]]
    buckets, places = buckets[order], places[order]
    order = np.lexsort((places, buckets))
    buckets, places = buckets[order], places[order]
    start = np.flatnonzero(np.r_[True, buckets[1:] != buckets[:-1]]) if len(buckets) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[start, len(buckets)])
    begins, crowd = np.repeat(start, sizes), np.repeat(sizes > CROWD, sizes)
    within = np.arange(len(buckets)) - begins
    found = [(places[begins], places, within > 0, crowd)]
    for apart in range(1, CROWD):
        ahead, behind = slice(apart, None), slice(None, -apart)
        near = (within[ahead] >= apart) & ((apart == 1) | ~crowd[ahead])
        if not near.any():
            break
        found.append((places[behind], places[ahead], near, crowd[ahead]))
    first = np.concatenate([one[chosen] for one, _, chosen, _ in found])
    second = np.concatenate([other[chosen] for _, other, chosen, _ in found])
    crowded = np.concatenate([many[chosen] for _, _, chosen, many in found])
    return _unique(first.astype(np.int64), second.astype(np.int64), crowded)


def _unique(first: Ints, second: Ints, crowded: npt.NDArray[np.bool_]) -> pa.Table:
    """Each pair once, ordered; it is crowded if it is so anywhere."""
    both = first << 32 | second
    order = np.argsort(both)
    both = both[order]
    start = np.flatnonzero(np.r_[True, both[1:] != both[:-1]]) if len(both) else np.zeros(0, np.int64)
    chosen = order[start]
    many = np.logical_or.reduceat(crowded[order], start) if len(start) else np.zeros(0, bool)
    return pa.table([pa.array(first[chosen]), pa.array(second[chosen]), pa.array(many)], schema=_CANDIDATES)


def _once(parts: list[pa.Table]) -> pa.Table:
    """The pairs of several parts of the buckets, in which a pair may stand more than once."""
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables(parts)
    return _unique(*(table[name].to_numpy() for name in _CANDIDATES.names))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 0 for two empty sets."""
    shared = len(one & other)
    union = len(one) + len(other) - shared
    return shared / union if union else 0.0


def _verify(pairs: pa.Table, settling: Settling, grams: Any, threshold: float) -> None:
    """Compute the similarity of candidates that are still open, and settle those at or above the threshold."""
    pairs = pairs.sort_by([("first", "ascending"), ("second", "ascending")])
    progress = Progress("comparing candidates", len(pairs))
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    for start in range(0, len(pairs), _BATCH):
        one, other = first[start : start + _BATCH], second[start : start + _BATCH]
        open_ = settling.stays[one] & settling.stays[other]
        one, other = one[open_], other[open_]
        score = np.array([jaccard(grams(a), grams(b)) for a, b in zip(one.tolist(), other.tolist(), strict=True)], np.float64)
        near = score >= threshold
        settling.pairs(one[near], other[near], score[near])
        progress.at(min(start + _BATCH, len(pairs)))
    progress.close()


def _batches(table: pa.Table) -> Iterable[pa.Table]:
    return (table.slice(start, _BATCH) for start in range(0, len(table), _BATCH))


def _seen(what: str, tables: Iterable[pa.Table], total: int) -> Iterable[pa.Table]:
    """Pass tables on and show how many rows are done, by batches."""
    progress = Progress(what, total)
    for number, table in enumerate(tables, 1):
        progress.at(min(number * _BATCH, total))
        yield table
    progress.close()
