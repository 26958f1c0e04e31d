"""A model says which of two answers is better."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlops_llm import digest
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval import placeholders, reading
from mlops_llm.eval.asking import Asking, Said, Task
from mlops_llm.eval.chat import Chat
from mlops_llm.eval.judge import Rated, Verdict
from mlops_llm.eval.judges.rubric import AGAIN
from mlops_llm.eval.pairwise import Choice, Match, Pair, match, rates
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Failure
from mlops_llm.tracking.prompts import check_name

_WRITTEN = {
    "A": ("first", "answer a", "回答A", "答案A", "甲"),
    "B": ("second", "answer b", "回答B", "答案B", "乙"),
    "tie": ("draw", "equal", "both", "平局", "平手", "一样", "相同", "C"),
}
_CHOICES = {"A": Choice.first, "B": Choice.second, "tie": Choice.tie}
_KEYS = ("winner", "better", "choice", "verdict", "胜者", "更好", "结果", "选择")
_SCHEMA = {
    "type": "object",
    "properties": {"comment": {"type": "string"}, "winner": {"type": "string", "enum": list(_CHOICES)}},
    "required": ["comment", "winner"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Compared:
    """What a judge says of a pair."""

    matches: Sequence[Match]
    """One of each repetition that could be read in both orders."""
    comment: str
    flags: Sequence[str]
    tokens: int
    cost: float


@component("judge", "pairwise")
@dataclass
class Pairwise(Chat):
    """A model says whether each answer is better than the row's reference; a win only where both orders agree.

    judge=pairwise_zh and judge=pairwise_en bring a template. `flip` is the share of pairs whose two orders disagree.
    """

    most: ClassVar[int] = 1
    least: ClassVar[int] = 0
    dimensions: ClassVar[tuple[str, ...]] = ("win", "tie", "loss", "flip")
    needs_reference: ClassVar[bool] = True

    name: str = "pairwise"
    """Under which the template is kept in MLflow's registry of prompts, with a new version for each new text."""
    template: str = ""
    """What the judge is told of a pair: {prompt}, {first}, {second}."""
    ending: str = 'Which answer is better? Answer with this JSON object alone, winner being "A", "B" or "tie":'
    """What stands between the pair and the form of the answer."""
    again: str = AGAIN
    """What is added where the judge's answer could not be read; {problem} is why."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._asking: Asking[str] | None = None
        self._matches = list[Match]()

    def check(self) -> None:
        """See that it can be asked; the server is not asked yet.

        Raises:
            UserError: address, model, key or template is missing, or the template has a placeholder that is none.
        """
        if not self.template.strip():
            raise UserError("is empty", "judge.template", "choose judge=pairwise_zh or judge=pairwise_en, or write one")
        placeholders.check(self.template, ("prompt", "first", "second"), ("first", "second"), "judge.template")
        check_name(self.name, "judge.name")
        super().check()

    def higher_is_better(self, dimension: str) -> bool | None:
        """Wins are good, losses and flips are not; a tie is neither."""
        return {"win": True, "tie": None, "loss": False, "flip": False}[dimension]

    def of_nothing(self) -> Mapping[str, float]:
        """The reference wins."""
        return {"win": 0.0, "tie": 0.0, "loss": 1.0, "flip": 0.0}

    def overall(self, scores: Mapping[str, float]) -> float:
        """Wins, and ties by half."""
        return scores["win"] + scores["tie"] / 2

    def text(self) -> str:
        """Template and form."""
        return "\n".join([self.template.strip(), "", self.ending.strip(), '{"comment": "…", "winner": "A | B | tie"}'])

    def version(self) -> str:
        """A digest of all that a judgement depends on besides the answers."""
        facts = {"text": self.text(), "again": self.again, "reading": reading.VERSION, "repetitions": self.repetitions}
        return digest.row(facts | self.identity())

    def rate(
        self, answers: Sequence[Rated], known: Answers | None = None, refresh: bool = False, ledger: Path | None = None
    ) -> Iterator[tuple[int, Verdict | Failure]]:
        """Compare each answer with the row's first reference.

        Raises:
            UserError: a row has no reference, or no more can be asked.
        """
        bare = next((each for each in answers if not each.references), None)
        if bare:
            remedy = "give it a reference, or rate by a rubric: judge=rubric_zh"
            raise UserError("has no reference to compare with", f"row {bare.place + 1}", remedy)
        for place, found in self.compare(_pairs(answers), known, refresh, ledger):
            yield place, found if isinstance(found, Failure) else _verdict(found)

    def compare(
        self, pairs: Sequence[Pair], known: Answers | None = None, refresh: bool = False, ledger: Path | None = None
    ) -> Iterator[tuple[int, Compared | Failure]]:
        """Compare answers, each pair in both orders; each with its place as soon as all of it is there.

        Raises:
            UserError: no more can be asked.
        """
        self._matches.clear()
        self._asking = self._made(known, refresh, ledger)
        turns = 2 * self.repetitions
        parts: dict[int, dict[int, Said[str] | Failure]] = {each.place: {} for each in pairs}
        for task, said in self._asking.ask(self._tasks(pairs)):
            parts[task.place][task.turn] = said
            if len(parts[task.place]) == turns:
                found = _compared([parts[task.place][turn] for turn in range(turns)])
                self._matches += [] if isinstance(found, Failure) else found.matches
                del parts[task.place]
                yield task.place, found

    def knows(self, answers: Sequence[Rated], known: Answers) -> bool:
        """Whether all pairs are known, in both orders."""
        return self._made(known).knows(self._tasks(_pairs(answers)))

    def facts(self) -> dict[str, str]:
        """What the last `rate` used, and which place the judge favours."""
        found = {"judge": f"{self.name} by {self.model}"} | (self._asking.facts() if self._asking else {})
        if self._matches:
            shares = rates(self._matches)
            said = f"{shares.flip:.1%} of pairs; the answer shown first wins {shares.favours:.1%}"
            found["orders disagree"] = said
        return found

    def numbers(self) -> dict[str, float]:
        """What the last `rate` used."""
        return self._asking.numbers() if self._asking else {}

    def _made(self, known: Answers | None, refresh: bool = False, ledger: Path | None = None) -> Asking[str]:
        return Asking(self, reading.choice(_KEYS, _WRITTEN), _SCHEMA, self.again, known, refresh, ledger)

    def _tasks(self, pairs: Sequence[Pair]) -> list[Task]:
        turns = range(2 * self.repetitions)
        return [Task(pair.place, turn, self._told(pair, turn % 2 == 1)) for pair in pairs for turn in turns]

    def _told(self, pair: Pair, is_exchanged: bool) -> str:
        first, second = (pair.second, pair.first) if is_exchanged else (pair.first, pair.second)
        values = {"prompt": pair.prompt, "first": first, "second": second}
        return placeholders.filled(self.template.strip(), values) + self.text().removeprefix(self.template.strip())


def _pairs(answers: Sequence[Rated]) -> list[Pair]:
    return [Pair(each.place, each.prompt, each.answer, each.references[0]) for each in answers]


def _compared(turns: Sequence[Said[str] | Failure]) -> Compared | Failure:
    """What the judgements of a pair come to; even places are in the given order, odd ones exchanged."""
    both = [(shown, other) for shown, other in zip(turns[::2], turns[1::2], strict=True)]
    good = [(shown, other) for shown, other in both if isinstance(shown, Said) and isinstance(other, Said)]
    if not good:
        return next(each for each in turns if isinstance(each, Failure))
    said = [each for pair in good for each in pair]
    flags = {"repaired": any(each.read.repaired for each in said), "asked again": any(each.is_second for each in said)}
    flags[f"{len(good)} of {len(both)} repetitions"] = len(good) < len(both)
    return Compared(
        [match(_CHOICES[shown.read.value], _CHOICES[other.read.value]) for shown, other in good],
        next((each.read.comment for each in said if each.read.comment), ""),
        [name for name, is_so in flags.items() if is_so],
        sum(each.tokens for each in said),
        sum(each.cost for each in said),
    )


def _verdict(found: Compared) -> Verdict:
    names = {"win": Choice.first, "tie": Choice.tie, "loss": Choice.second}
    values = {name: [float(each.choice is choice) for each in found.matches] for name, choice in names.items()}
    values["flip"] = [float(each.is_flipped) for each in found.matches]
    spread = {name: statistics.stdev(each) for name, each in values.items()} if len(found.matches) > 1 else {}
    means = {name: statistics.fmean(each) for name, each in values.items()}
    return Verdict(means, found.comment, spread, found.flags, found.tokens, found.cost)
