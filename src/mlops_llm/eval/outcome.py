"""What an evaluation found, as pages, tables and the record take it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlops_llm.eval.metric import Sums
from mlops_llm.inference.engine import Failure
from mlops_llm.record import Grid


@dataclass(frozen=True)
class Seen:
    """How a score depends on items that the model met in training."""

    share: float
    """Of the items, 0 to 1."""
    rest: float | None
    """The score on the other items; None where there are none."""


@dataclass(frozen=True)
class Score:
    """One number about a model."""

    name: str
    """Behind `score/` in the record: `bleu`, `judge/accuracy`, `gsm8k[50]/exact_match`."""
    value: float
    count: int
    """Items that it is of."""
    higher_is_better: bool | None = True
    interval: tuple[float, float] | None = None
    """95 %."""
    signature: str = ""
    """How it was counted."""
    most: float | None = None
    """The largest value there is, such as 5 of a judge's dimension; None where there is none."""
    answered: float | None = None
    """The value over answered items alone, where some failed: in `value` a failed one counts as an empty answer."""
    seen: Seen | None = None
    least: float = 0.0
    """The smallest value there is, where there is a largest."""
    sums: Sums | None = field(default=None, compare=False, repr=False)
    """What it is made of, of each sample of the dataset, where it is no mean."""


@dataclass(frozen=True)
class Sample:
    """One row with its answer."""

    place: int
    """Number of the row in its dataset, from 0."""
    prompt: str
    answer: str
    """Empty where there is none."""
    references: Sequence[str] = ()
    label: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    """Name of a score -> value of this answer."""
    comment: str = ""
    """What the judge said, or why a benchmark's program did not pass."""
    failure: Failure | None = None
    """Why there is no answer, or (of a judge) no rating."""
    seconds: float = 0.0
    tokens: int = 0
    cut: bool = False
    """The answer ended because it was as long as one may be."""
    flags: Sequence[str] = ()
    """What is to be known of it, such as `repaired` of a judge's answer."""
    was_seen: bool | None = None
    """Whether the model met it in training; None where its history is not known."""
    asked: str = ""
    """What the row asks, where the prompt has more around it, such as earlier turns or worked examples."""
    task: str = ""
    """Of a benchmark, which the row is of."""

    @property
    def bare(self) -> Sample:
        """Its numbers without any text of a row, a model, a judge or a server."""
        failure = replace(self.failure, cause="") if self.failure else None
        bare = replace(self, prompt="", asked="", answer="", comment="", failure=failure)
        return replace(bare, references=(), label=None, metadata={})


@dataclass(frozen=True)
class Group:
    """The scores of the rows that share a value of their metadata."""

    key: str
    value: str
    count: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """Everything about one model on one dataset, or on benchmarks."""

    title: str
    """`MODEL on DATASET`."""
    model: str
    dataset: str
    """With version, and with the number of rows where not all were asked; empty of benchmarks alone."""
    engine: str
    scores: Sequence[Score]
    samples: Sequence[Sample]
    facts: Mapping[str, str]
    """What else a person wants to know: sampling, template, seconds a sample, tokens/s, peak memory, calls, cost."""
    groups: Sequence[Group] = ()
    tables: Mapping[str, Grid] = field(default_factory=dict)
    """File name -> more to look at."""
    warnings: Sequence[str] = ()

    @property
    def failures(self) -> Counter[str]:
        """Class of failure -> how many."""
        return Counter(each.failure.kind.value for each in self.samples if each.failure)

    @property
    def succeeded(self) -> int:
        """Samples with an answer (and a rating, where they are rated)."""
        return sum(each.failure is None for each in self.samples)
