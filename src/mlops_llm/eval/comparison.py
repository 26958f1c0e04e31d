"""Several models side by side, as pages, tables and the record take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.outcome import Outcome, Sample, Score
from mlops_llm.eval.significance import LEVEL, Paired, needed, resolved

WHOLE = f"judge/{OVERALL}"


@dataclass(frozen=True)
class Cost:
    """What a model takes; None of what does not compare."""

    bytes: int | None = None
    """Of its weights on disk, with those that an adapter lies on."""
    seconds: float | None = None
    """A sample."""
    tokens: float | None = None
    """Each second."""
    memory: int | None = None
    """Most bytes that were held at once."""
    judge: Mapping[str, float] = field(default_factory=dict)
    """As `Judge.numbers` says."""
    between: tuple[float, float] | None = None
    """Seconds a sample of the fastest and of the slowest of several rounds without warm-up; None of a single one."""

    def is_faster(self, other: Cost) -> bool:
        """Whether every round took less than every one of another."""
        return self.between is not None and other.between is not None and self.between[1] < other.between[0]


@dataclass(frozen=True)
class Model:
    """One of the models."""

    number: int
    """From 1, in the order in which they were named."""
    ref: str
    outcome: Outcome
    cost: Cost = field(default_factory=Cost)
    digest: str = ""
    """What its answers depend on, see `Subject.digest`."""
    run: str = ""
    """Run that trained it."""
    step: int = 0
    tokenizer: str = ""
    """Digest of its tokenizer; empty where it is not known."""
    evaluation: str = ""
    """Name of the run that holds its evaluation."""

    @property
    def name(self) -> str:
        """What a person reads."""
        return f"{self.number} {self.ref}"


@dataclass(frozen=True)
class Pair:
    """Two models by one score."""

    first: int
    """Number of the model."""
    second: int
    found: Paired
    adjusted: float
    """p by Holm, over all pairs and scores of the comparison."""

    @property
    def is_significant(self) -> bool:
        """Whether the difference is more than chance."""
        return self.adjusted <= LEVEL


@dataclass(frozen=True)
class Row:
    """One score of all models."""

    score: Score
    """The first one that there is: name, scale, and which end is good."""
    values: Sequence[Score | None]
    """Of each model; None of one that lacks it, and of all where they say nothing side by side."""
    pairs: Sequence[Pair] = ()
    untested: str = ""
    """Why there are no pairs."""

    @property
    def numbers(self) -> range:
        """Of the models."""
        return range(1, len(self.values) + 1)

    @property
    def best(self) -> int | None:
        """Number of the model that is significantly better than every other one, if there is one."""
        return next((one for one in self.numbers if all(self.beats(one, each) for each in self.numbers if each != one)), None)

    def beats(self, one: int, other: int) -> bool:
        """Whether a model is significantly better than another."""
        pair = self.pair(one, other)
        return pair is not None and pair.is_significant and self.gain(one, other) > 0

    def gain(self, one: int, other: int) -> float:
        """By how much a model is better than another, on the samples of both; 0 where they were not compared."""
        pair, better = self.pair(one, other), 1 if self.score.higher_is_better else -1
        return 0.0 if pair is None else better * pair.found.difference * (1 if pair.first == one else -1)

    def pair(self, one: int, other: int) -> Pair | None:
        """What is known of two models, in whichever order."""
        return next((each for each in self.pairs if {each.first, each.second} == {one, other}), None)


@dataclass(frozen=True)
class Together:
    """One sample with the answers of all models."""

    samples: Sequence[Sample]
    """Of each model."""
    by: Score | None
    """The score that tells the winner; None where no sample has one."""
    winner: int | None
    """Number of the model with the best answer; None where there are several."""
    disagreement: float
    """How far the answers lie apart by that score, as a share of its range."""
    flips: Sequence[str] = ()
    """Scores by which it is right of one model and wrong of another."""


@dataclass(frozen=True)
class Comparison:
    """Everything about several models on the same rows."""

    title: str
    dataset: str
    """With version, and with the number of rows where not all were asked; benchmarks where there is none."""
    models: Sequence[Model]
    rows: Sequence[Row]
    samples: Sequence[Together]
    """The ones first on which models lie furthest apart."""
    warnings: Sequence[str] = ()
    unequal: str = ""
    """Why speeds do not compare."""
    about: Mapping[str, str] = field(default_factory=dict)
    """How models were asked: sampling, engine, judge."""

    @property
    def comparisons(self) -> int:
        """Differences that were tested: Holm counts them all."""
        return sum(len(each.pairs) for each in self.rows)

    @property
    def head(self) -> Row | None:
        """What decides: a judge's rating as a whole, else the first score that was compared."""
        tested = [each for each in self.rows if each.pairs]
        return next((each for each in tested if each.score.name == WHOLE), tested[0] if tested else None)

    @property
    def _undecided(self) -> int:
        """Differences that are not significant: the next one among them has its part of the level by Holm."""
        return max(1, sum(not pair.is_significant for row in self.rows for pair in row.pairs))

    def resolved(self, row: Row) -> tuple[float, float] | None:
        """The differences that are found in four of five cases, of the pair where that is smallest and where it is largest.

        None where no two values differ and the scale has no end, so that nothing says how far others may lie apart.
        """
        spreads = [(_spread(row, each), each.found.count) for each in row.pairs]
        found = [resolved(spread, count, self._undecided) for spread, count in spreads if spread]
        return (min(found), max(found)) if found else None

    def needs(self, pair: Pair) -> int | None:
        """Samples that find a difference as large as the one seen, in four of five cases; None where none was seen."""
        enough = needed(pair.found.spread, pair.found.difference, self._undecided)
        return enough if enough is None or pair.is_significant else max(enough, pair.found.count + 1)


def _spread(row: Row, pair: Pair) -> float:
    """Of a pair's differences; where all are equal, with as many others as may not have been drawn (see `interval.of_mean`)."""
    found, score = pair.found, row.score
    if found.spread or score.most is None:
        return found.spread
    others = 1 - (LEVEL / 2) ** (1 / found.count)
    return float((score.most - score.least) * others**0.5)
