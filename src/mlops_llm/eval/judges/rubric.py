"""A model rates answers by a rubric."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mlops_llm import digest
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval import placeholders, reading
from mlops_llm.eval.asking import Asking, Said, Task
from mlops_llm.eval.chat import Chat
from mlops_llm.eval.judge import OVERALL, Rated, Verdict
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Failure
from mlops_llm.tracking.prompts import check_name

MOST = 5
AGAIN = "Your last answer could not be used: {problem}. Answer with the whole JSON object and nothing else."


@component("judge", "rubric")
@dataclass
class Rubric(Chat):
    """A model rates each answer from 1 to 5 in several dimensions (Zheng et al. 2023, arXiv:2306.05685, section 3.1).

    judge=rubric_zh and judge=rubric_en bring a template and dimensions.
    """

    most: ClassVar[int] = MOST
    least: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False

    name: str = "rubric"
    """Under which the template is kept in MLflow's registry of prompts, with a new version for each new text."""
    template: str = ""
    """What the judge is told of a row: {prompt}, {response}, {reference}."""
    dimensions: list[str] = field(default_factory=lambda: ["accuracy", "relevance", "fluency", "professionalism"])
    """What is rated."""
    labels: dict[str, str] = field(default_factory=dict)
    """What a dimension is called in the template's language; the judge may answer by it."""
    meanings: dict[str, str] = field(default_factory=dict)
    """What a dimension means, for the judge."""
    ending: str = "Rate each dimension with a whole number from 1 (worst) to 5 (best). Answer with this JSON object alone:"
    """What stands between the dimensions and the form of the answer."""
    no_reference: str = "(none)"
    """What stands for {reference} where a row has none."""
    again: str = AGAIN
    """What is added where the judge's answer could not be read; {problem} is why."""

    def __post_init__(self) -> None:
        """Check the ranges and the dimensions."""
        super().__post_init__()
        if not self.dimensions or not all(each.strip() for each in self.dimensions):
            raise UserError("names nothing to rate", "judge.dimensions", "name at least one: judge.dimensions=[accuracy]")
        twice = next((each for each in self.dimensions if self.dimensions.count(each) > 1), None)
        if twice:
            raise UserError(f"names {twice} twice", "judge.dimensions", "name each once")
        for taken, what in (("comment", "what the judge writes"), (OVERALL, "the mean of all")):
            if taken in self.dimensions:
                raise UserError(f"names {taken}, which is {what}", "judge.dimensions", "choose another word, such as quality")
        alike = reading.alike(self._names())
        if alike:
            what = f"names {alike[0]} and {alike[1]}, which cannot be told apart in an answer"
            raise UserError(what, "judge.dimensions", "choose other words")
        self._asking: Asking[dict[str, float]] | None = None
        self._spreads = list[Mapping[str, float]]()

    def check(self) -> None:
        """See that it can be asked; the server is not asked yet.

        Raises:
            UserError: address, model, key or template is missing, or the template has a placeholder that is none.
        """
        if not self.template.strip():
            raise UserError("is empty", "judge.template", "choose judge=rubric_zh or judge=rubric_en, or write one")
        placeholders.check(self.template, ("prompt", "response", "reference"), ("response",), "judge.template")
        check_name(self.name, "judge.name")
        super().check()

    def higher_is_better(self, dimension: str) -> bool | None:
        """The higher the better."""
        return True

    def of_nothing(self) -> Mapping[str, float]:
        """The worst of each dimension."""
        return dict.fromkeys(self.dimensions, 1.0)

    def overall(self, scores: Mapping[str, float]) -> float:
        """The mean of the dimensions."""
        return statistics.fmean(scores[each] for each in self.dimensions)

    def text(self) -> str:
        """Template, dimensions and form."""
        lines = [f"- {self._called(each)}" for each in self.dimensions]
        form = ", ".join(['"comment": "…"', *(f'"{each}": 1-{MOST}' for each in self.dimensions)])
        return "\n".join([self.template.strip(), "", *lines, "", f"{self.ending.strip()}", f"{{{form}}}"])

    def version(self) -> str:
        """A digest of all that a rating depends on besides the answer."""
        facts = {"text": self.text(), "no_reference": self.no_reference, "again": self.again, "reading": reading.VERSION}
        return digest.row(facts | {"repetitions": self.repetitions} | self.identity())

    def rate(
        self, answers: Sequence[Rated], known: Answers | None = None, refresh: bool = False, ledger: Path | None = None
    ) -> Iterator[tuple[int, Verdict | Failure]]:
        """Rate answers; each with its place as soon as all its repetitions are there.

        Raises:
            UserError: no more can be rated.
        """
        self._asking = asking = self._made(known, refresh, ledger)
        self._spreads.clear()
        parts: dict[int, list[Said[dict[str, float]] | Failure]] = {each.place: [] for each in answers}
        for task, said in asking.ask(self._tasks(answers)):
            parts[task.place].append(said)
            if len(parts[task.place]) == self.repetitions:
                found = verdict_of(parts.pop(task.place))
                self._spreads += [found.spread] if isinstance(found, Verdict) and found.spread else []
                yield task.place, found

    def knows(self, answers: Sequence[Rated], known: Answers) -> bool:
        """Whether all repetitions of all answers are known."""
        return self._made(known).knows(self._tasks(answers))

    def facts(self) -> dict[str, str]:
        """What the last `rate` used, and how far repetitions lie apart."""
        found = {"judge": f"{self.name} by {self.model}"} | (self._asking.facts() if self._asking else {})
        if self._spreads:
            means = {name: statistics.fmean(each[name] for each in self._spreads) for name in self.dimensions}
            found["spread over repetitions"] = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        return found

    def numbers(self) -> dict[str, float]:
        """What the last `rate` used."""
        return self._asking.numbers() if self._asking else {}

    def _names(self) -> dict[str, list[str]]:
        """Each dimension with what else it may be called."""
        return {each: [self.labels.get(each, "")] for each in self.dimensions}

    def _made(self, known: Answers | None, refresh: bool = False, ledger: Path | None = None) -> Asking[dict[str, float]]:
        return Asking(self, reading.ratings(self._names(), MOST), self._schema(), self.again, known, refresh, ledger)

    def _tasks(self, answers: Sequence[Rated]) -> list[Task]:
        return [Task(each.place, turn, self._told(each)) for each in answers for turn in range(self.repetitions)]

    def _called(self, dimension: str) -> str:
        label, meaning = self.labels.get(dimension, ""), self.meanings.get(dimension, "")
        return f"{dimension}{f' ({label})' if label else ''}{f': {meaning}' if meaning else ''}"

    def _told(self, one: Rated) -> str:
        values = {
            "prompt": one.prompt,
            "response": one.answer,
            "reference": "\n".join(one.references) or self.no_reference,
        }
        return placeholders.filled(self.template.strip(), values) + self.text().removeprefix(self.template.strip())

    def _schema(self) -> dict[str, Any]:
        ratings = {each: {"type": "integer", "enum": list(range(1, MOST + 1))} for each in self.dimensions}
        fields = {"comment": {"type": "string"}, **ratings}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def verdict_of(parts: Sequence[Said[dict[str, float]] | Failure]) -> Verdict | Failure:
    """What several judgements of one answer come to: their means and spread; a failure where none of them is one.

    Standard deviations are those of a sample (n - 1).
    """
    good = [each for each in parts if isinstance(each, Said)]
    if not good:
        return next(each for each in parts if isinstance(each, Failure))
    values = {name: [each.read.value[name] for each in good] for name in good[0].read.value}
    flags = {"repaired": any(each.read.repaired for each in good), "asked again": any(each.is_second for each in good)}
    flags[f"{len(good)} of {len(parts)} repetitions"] = len(good) < len(parts)
    return Verdict(
        {name: statistics.fmean(each) for name, each in values.items()},
        next((each.read.comment for each in good if each.read.comment), ""),
        {name: statistics.stdev(each) for name, each in values.items()} if len(good) > 1 else {},
        [name for name, is_so in flags.items() if is_so],
        sum(each.tokens for each in good),
        sum(each.cost for each in good),
    )
