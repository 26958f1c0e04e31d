"""Which of some texts share runs of words with others: a table of hashes, past which any number of rows is streamed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from mlops_llm.eval.words import is_unspaced, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORTEST = 8
"""Words of the shortest run that tells a text from others (Brown et al. 2020, appendix C: 8 to 13 words)."""
CHARACTERS_A_WORD = 1.6
"""Of running Chinese; where no blanks stand between words, single characters are compared, and so many more of them."""
_BASE = 0x9E3779B97F4A7C15


class Texts:
    """Some texts as numbers, made once, however many indexes they are compared with."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Keep them; they are split into words when the first index asks.

        Args:
            texts: past which questions are held.
        """
        self._texts = texts
        self._runs: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}

    @cached_property
    def _words(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """A hash of each word, and the number of its text."""
        import numpy

        coded = [words(text) for text in self._texts]
        owner = numpy.repeat(numpy.arange(len(coded)), [len(each) for each in coded])
        return _hashes(list(chain.from_iterable(coded))), owner

    def runs(self, length: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """A hash of each run of so many words that lies in one text, and the number of the text."""
        if length not in self._runs:
            hashes, owner = self._words
            rolled = _rolled(hashes, length)
            first = owner[: len(rolled)]
            within = first == owner[length - 1 :]
            self._runs[length] = rolled[within], first[within]
        return self._runs[length]


class Index:
    """The runs of words (n-grams) of some texts.

    A text that has not `n` words is compared by runs of `SHORTEST`, and not at all if it has not even those. Runs that several
    texts have, such as the passage above several questions, tell nothing of a single one and are left out, unless it has no
    other. Punctuation and the signs of sums are no words: texts that differ in nothing else are the same here.
    """

    def __init__(self, texts: Sequence[str], n: int) -> None:
        """Hash the runs of all texts.

        Args:
            texts: what is looked for.
            n: words of a run.
        """
        import numpy

        coded = [words(text) for text in texts]
        distinct = {key: place for place, key in enumerate(dict.fromkeys(map(tuple, coded)))}
        self._owners: list[list[int]] = [[] for _ in distinct]
        for place, each in enumerate(coded):
            self._owners[distinct[tuple(each)]].append(place)
        lengths = [_length(each, n) for each in distinct]
        self._lengths = sorted({each for each in lengths if each})
        runs = [
            numpy.unique(_rolled(_hashes(each), length)) if length else numpy.empty(0, numpy.uint64)
            for each, length in zip(distinct, lengths, strict=True)
        ]
        values, counts = numpy.unique(_joined(runs), return_counts=True)
        shared = values[counts > 1]
        own = [each[~numpy.isin(each, shared)] for each in runs]
        runs = [mine if len(mine) else each for mine, each in zip(own, runs, strict=True)]
        self._totals = numpy.array([len(each) for each in runs], dtype=numpy.int64)
        hashes, whose = _joined(runs), numpy.repeat(numpy.arange(len(runs)), self._totals)
        order = numpy.argsort(hashes, kind="stable")
        self._hashes, self._whose = hashes[order], whose[order]
        bits = max(16, len(hashes).bit_length() + 4)
        self._shift = numpy.uint64(64 - bits)
        self._maybe = numpy.zeros(1 << bits, dtype=bool)  # passes by nearly all of what is in no text
        self._maybe[self._hashes >> self._shift] = True

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return len(self._hashes) > 0

    def shares(self, rows: Texts, least: float) -> list[tuple[int, int, float]]:
        """(row, text, share of the text's runs that the row has), where the share is at least `least`."""
        import numpy

        met = [self._met(*rows.runs(length)) for length in self._lengths]
        pairs = numpy.unique(_joined(met, numpy.int64))  # of row and entry: a run counts once, however often a row has it
        entries = max(1, len(self._hashes))
        row, whose = pairs // entries, self._whose[pairs % entries] if len(pairs) else pairs
        texts = max(1, len(self._owners))
        found, counts = numpy.unique(row * texts + whose, return_counts=True)
        owner = found % texts
        share = counts / self._totals[owner] if len(found) else counts.astype(float)
        chosen = numpy.flatnonzero(share >= least)
        return [
            (int(found[each] // texts), text, float(share[each])) for each in chosen for text in self._owners[int(owner[each])]
        ]

    def _met(self, rolled: NDArray[Any], row_of: NDArray[Any]) -> NDArray[Any]:
        """Row and entry of each run of one length that is in the table, as one number."""
        import numpy

        places = numpy.flatnonzero(self._maybe[rolled >> self._shift])
        first = numpy.searchsorted(self._hashes, rolled[places], "left")
        counts = numpy.searchsorted(self._hashes, rolled[places], "right") - first
        offsets = numpy.arange(counts.sum()) - numpy.repeat(counts.cumsum() - counts, counts)
        entries = numpy.repeat(first, counts) + offsets
        return numpy.asarray(numpy.repeat(row_of[places], counts) * max(1, len(self._hashes)) + entries, dtype=numpy.int64)


def _length(words: Sequence[str], n: int) -> int:
    """Words of a run in a text of these words; 0 where it is too short."""
    factor = CHARACTERS_A_WORD if sum(map(is_unspaced, words)) * 2 > len(words) else 1.0
    usual, least = round(n * factor), round(min(n, SHORTEST) * factor)
    return usual if len(words) >= usual else least if len(words) >= least else 0


def _hashes(words: Sequence[str]) -> NDArray[Any]:
    """64 random bits a word, the same for the same word within a process."""
    import numpy

    return numpy.fromiter(map(hash, words), dtype=numpy.int64, count=len(words)).view(numpy.uint64)


def _rolled(hashes: NDArray[Any], length: int) -> NDArray[Any]:
    """A hash of each run of `length` words: the polynomial of their hashes modulo 2^64."""
    import numpy

    total = numpy.zeros(max(0, len(hashes) - length + 1), dtype=numpy.uint64)
    for place in range(length if len(total) else 0):
        total *= numpy.uint64(_BASE)
        total += hashes[place : place + len(total)]
    return total


def _joined(arrays: Sequence[NDArray[Any]], kind: Any = None) -> NDArray[Any]:
    import numpy

    return numpy.concatenate([*arrays, numpy.empty(0, kind or numpy.uint64)])
