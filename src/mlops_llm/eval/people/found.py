"""What people's ratings come to: scores with intervals, wins, agreement, and whom one may trust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from mlops_llm.eval.interval import of_mean, wilson
from mlops_llm.eval.judge import OVERALL
from mlops_llm.eval.outcome import Score
from mlops_llm.eval.people.agreement import Level, alpha, kappa
from mlops_llm.eval.people.ballot import Ballot, Kind
from mlops_llm.eval.people.checked import Filled
from mlops_llm.eval.people.place import Placed, placed
from mlops_llm.eval.people.words import LEAST, MOST

PREFIX = "human/"
"""What the names of people's scores begin with."""


@dataclass(frozen=True)
class Wins:
    """Two models on the rows that both have a rating of."""

    first: int
    """Place of the model."""
    second: int
    win: int
    """Rows on which people rate the first one higher."""
    tie: int
    loss: int

    @property
    def count(self) -> int:
        """Rows."""
        return self.win + self.tie + self.loss

    @property
    def rate(self) -> float:
        """Share of the rows that the first one wins; a tie counts half."""
        return (self.win + self.tie / 2) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's."""
        return wilson(self.win + self.tie / 2, self.count)


@dataclass(frozen=True)
class Agreed:
    """How far raters agree in a dimension; NaN where that cannot be told."""

    ordinal: float
    """Krippendorff's alpha."""
    interval: float
    kappa: float | None
    """Cohen's, with quadratic weights; None unless there are two raters."""
    items: int
    """That two raters or more rated."""


class Found:
    """The ratings of one evaluation.

    An answer that is none has the worst rating, as a judge's scores have it, so that no failure of a model raises its score.
    """

    def __init__(self, ballot: Ballot, filled: Sequence[Filled]) -> None:
        """Take the files of the raters that count."""
        self.ballot, self.filled = ballot, filled
        self._given = dict[str, dict[int, dict[int, float]]]()
        for each in filled:
            for one in each.rated.values():
                if one.line.kind is Kind.answer:
                    for name, score in with_overall(one.scores, ballot.dimensions).items():
                        self._given.setdefault(name, {}).setdefault(one.line.answer, {})[each.rater] = score

    @property
    def names(self) -> list[str]:
        """The dimensions, and `overall`."""
        return [*self.ballot.dimensions, OVERALL]

    def values(self, name: str, model: int) -> dict[int, float]:
        """Row -> the mean of what raters say of a model's answer to it."""
        given = self._given.get(name, {})
        found = {
            answer.place: fmean(given[number].values())
            for number, answer in enumerate(self.ballot.answers)
            if answer.model == model and number in given
        }
        return found | {place: float(LEAST) for place, of in self.ballot.none if of == model}

    def scores(self, model: int) -> list[Score]:
        """Of a model: each dimension and the overall score, those that have a value."""
        made = []
        for name in self.names:
            values = list(self.values(name, model).values())
            if values:
                sure = of_mean(values, most=MOST, least=LEAST)
                made.append(Score(f"{PREFIX}{name}", fmean(values), len(values), True, sure, self.signature, MOST))
        return made

    @property
    def signature(self) -> str:
        """Who rated."""
        return f"people:{self.ballot.evaluation}|raters:{len(self.filled)}"

    def wins(self) -> Iterator[Wins]:
        """Of each pair of models, by the overall score."""
        values = [self.values(OVERALL, model) for model in range(len(self.ballot.models))]
        for first, second in combinations(range(len(values)), 2):
            rows = [(values[first][place], values[second][place]) for place in values[first].keys() & values[second].keys()]
            if rows:
                win, loss = sum(one > other for one, other in rows), sum(one < other for one, other in rows)
                yield Wins(first, second, win, len(rows) - win - loss, loss)

    def agreement(self) -> dict[str, Agreed]:
        """Dimension -> how far raters agree; nothing of a single rater."""
        if len(self.filled) < 2:
            return {}
        raters, found = [each.rater for each in self.filled], dict[str, Agreed]()
        for name in self.names:
            given = list(self._given.get(name, {}).values())
            units = [[each.get(rater) for rater in raters] for each in given]
            both = [each for each in given if len(each) > 1]
            cohen = None
            if len(raters) == 2 and name != OVERALL:
                cohen = kappa([int(each[raters[0]]) for each in both], [int(each[raters[1]]) for each in both])
            found[name] = Agreed(alpha(units, Level.ordinal), alpha(units, Level.interval), cohen, len(both))
        return found

    @property
    def sorted_files(self) -> list[str]:
        """Files whose rows were put into another order: nobody knows which of two answers was read first."""
        return [each.returned.file.name for each in self.filled if not each.is_in_order]

    def placed(self) -> Placed | None:
        """How answers that were shown first are rated, by the overall score; None of one answer to each prompt."""
        return placed(self._shown(each) for each in self.filled if each.is_in_order)

    def _shown(self, filled: Filled) -> dict[int, list[tuple[int, float]]]:
        """Row -> place and overall rating of each answer."""
        shown = dict[int, list[tuple[int, float]]]()
        for one in filled.rated.values():
            overall = with_overall(one.scores, self.ballot.dimensions).get(OVERALL)
            if one.line.kind is Kind.answer and overall is not None:
                shown.setdefault(self.ballot.answers[one.line.answer].place, []).append((one.line.shown, overall))
        return shown

    def table(self, texts: bool) -> dict[str, list[Any]]:
        """Every rating as a table for `record.Run.artifact`.

        Args:
            texts: also prompts, answers and comments.
        """
        found = dict[str, list[Any]]()
        for each in self.filled:
            in_order = each.is_in_order
            for one in each.rated.values():
                if one.line.kind is Kind.check:
                    continue
                answer = self.ballot.answers[one.line.answer]
                row: dict[str, Any] = {
                    "row": answer.place + 1,
                    "model": self.ballot.models[answer.model].ref,
                    "rater": each.rater,
                    "repeated": one.line.kind is Kind.repeat,
                    "shown": one.line.shown if in_order else None,
                    "characters": answer.length,
                    "answer mark": answer.mark,
                }
                scores = with_overall(one.scores, self.ballot.dimensions)
                row |= {name: scores.get(name) for name in self.names}
                row |= {"prompt": one.prompt, "answer": one.answer, "comment": one.comment} if texts else {}
                for name, value in row.items():
                    found.setdefault(name, []).append(value)
        return found


def with_overall(scores: Mapping[str, float], dimensions: Sequence[str]) -> dict[str, float]:
    """Ratings with their mean, where every dimension has one."""
    whole = all(name in scores for name in dimensions)
    return {**scores, **({OVERALL: fmean(scores[name] for name in dimensions)} if whole else {})}
