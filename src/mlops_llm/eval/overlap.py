"""Which of the rows that are asked did the model meet in training, and what is a score without them."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_llm.data.kinds import Kind, infer
from mlops_llm.data.read import Row
from mlops_llm.data.ref import record
from mlops_llm.data.tokens import CHUNK, chunks
from mlops_llm.errors import UserError
from mlops_llm.eval import trained
from mlops_llm.eval.ngrams import SHORTEST, Index
from mlops_llm.eval.outcome import Seen
from mlops_llm.eval.questions import Question, question
from mlops_llm.eval.words import unblanked
from mlops_llm.models.ref import Place
from mlops_llm.tracking.lineage import Lineage, Used, trace
from mlops_llm.tracking.store import is_away

if TYPE_CHECKING:
    from mlops_llm.tracking.store import Store


@dataclass
class Overlap:
    """How rows that the model was trained on are looked for among those that are asked."""

    check: bool = True
    """Look for them in every dataset behind the model; false leaves it open."""
    words: int = 13
    """Length of the runs of words that are compared; of Chinese and the like 1.6 times as many characters."""
    threshold: float = 0.5
    """Share of a question's runs that one training row must have to count as the same; 1 is all of them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.words < SHORTEST:
            raise UserError(f"is {self.words}", "overlap.words", f"give a whole number from {SHORTEST}")
        if not 0 < self.threshold <= 1:
            raise UserError(f"is {self.threshold}", "overlap.threshold", "give a share above 0, at most 1")


class How(IntEnum):
    """In what a training row is the same as a question, from the weakest on."""

    words = 1
    """It has enough of the question's runs of words."""
    question = 2
    """It asks the same; width, case and blanks do not count."""
    answered = 3
    """It asks the same, and has the reference as its answer."""


_SAID = {How.words: "its words", How.question: "the question", How.answered: "question and answer"}


class Met(NamedTuple):
    """The training row that is most like a question."""

    how: How
    share: float
    """Of the question's runs of words; 1 where it is the same."""
    dataset: str
    """`sales_sft@v1.0`; without a version only its name."""
    where: str
    """Place of the row."""
    run: str
    """Name of the training."""

    def __str__(self) -> str:
        """For a person."""
        share = f" ({self.share:.0%} of them)" if self.how is How.words else ""
        return f"{_SAID[self.how]}{share} in {self.dataset}, {self.where}, trained by {self.run}"


@dataclass(frozen=True)
class Checked:
    """What is known of each question."""

    trained: Sequence[Met | None]
    """Row that the model was trained on."""
    chose: Sequence[Met | None]
    """Row that was not trained on, but by which the checkpoint was chosen."""
    datasets: Sequence[str]
    """What was searched."""
    unknown: Sequence[str]
    """What could not be, for a person."""
    influences: Sequence[str] = ()
    """Teachers and reward models, whose own data is not looked at."""

    @property
    def seen(self) -> list[bool | None]:
        """Whether the model was trained on each question; None where a part of its past is not known."""
        without = None if self.unknown else False
        return [True if met else without for met in self.trained]

    @property
    def reasons(self) -> list[str]:
        """Of each question: where it was met; empty where it was not."""
        return [str(met) if met else "" for met in self.trained]

    @property
    def share(self) -> float | None:
        """Share of the questions that the model was trained on, as far as its past is known; None where nothing of it is."""
        return sum(map(bool, self.trained)) / len(self.trained) if self.datasets and self.trained else None

    def metrics(self) -> dict[str, float]:
        """The shares as the record has them; empty where nothing is known."""
        if self.share is None:
            return {}
        return {"overlap/share": self.share, "overlap/chosen_by": _only(self.chose, self.trained) / len(self.trained)}

    def facts(self) -> dict[str, str]:
        """What a person wants to know."""
        told = {}
        if self.share is not None:
            kinds = Counter(_SAID[met.how] for met in self.trained if met)
            how = ", ".join(f"{count} by {name}" for name, count in kinds.most_common())
            chosen = _only(self.chose, self.trained)
            told["seen in training"] = (
                f"{sum(map(bool, self.trained))} of {len(self.trained)} items"
                + (f" ({how})" if how else "")
                + (f"; {chosen} more chose the checkpoint" if chosen else "")
            )
            told["compared with"] = ", ".join(self.datasets)
        if self.unknown:
            told["training data not known"] = "; ".join(self.unknown)
        if self.influences:
            told["not compared"] = f"data of {', '.join(self.influences)}"
        return told

    def table(self, questions: Sequence[Question], rows: Sequence[int]) -> dict[str, list[Any]]:
        """The questions that were met, as a table.

        Args:
            questions: all of them.
            rows: their places in the dataset, from 0; the table counts from 1.
        """
        found = [
            (place + 1, one.text, use, _SAID[met.how], round(met.share, 4), met.dataset, met.where, met.run)
            for place, one, *both in zip(rows, questions, self.trained, self.chose, strict=True)
            for use, met in zip(("trained", "chose the checkpoint"), both, strict=True)
            if met
        ]
        names = ("row", "prompt", "use", "the same", "share", "dataset", "where", "run")
        return {name: [row[column] for row in found] for column, name in enumerate(names)}


def _only(these: Sequence[Met | None], not_those: Sequence[Met | None]) -> int:
    return sum(bool(one) and not other for one, other in zip(these, not_those, strict=True))


def check(questions: Sequence[Question], lineage: Lineage, how: Overlap, store: Store | None) -> Checked:
    """Look for questions among all rows that a model was trained on; every file is read once, a few rows at a time.

    A row of the training part counts as met even if training ended before its turn.

    Args:
        questions: what is asked.
        lineage: what is behind the model.
        how: settings.
        store: the record, which keeps the versions.
    """
    files, lost = trained.found(lineage, store)
    search, searched = _Search(questions, how), list[str]()
    for file in files:
        try:
            search.through(file)
            searched.append(file.name)
        except (UserError, OSError) as error:
            lost.append(f"{file.name}: {trained.said(error)}")
    unknown = (*lineage.unknown, *lost)
    return Checked(search.trained, search.chose, list(dict.fromkeys(searched)), unknown, lineage.influences)


def of_model(questions: Sequence[Question], place: Place | None, weights: str, how: Overlap) -> Checked | None:
    """`check` of a model by what the record of this folder knows of it; None where that is switched off.

    A record that is away is no reason to lose an evaluation: it is said, and leaves the answer open.

    Args:
        questions: what is asked.
        place: the model; None of one that answers at a server.
        weights: digest of the weights that lie there.
        how: settings.
    """
    if not how.check:
        return None
    if place is None:
        return check(questions, Lineage((), ("what a server's model was trained on",)), how, None)
    try:
        store = record()
        return check(questions, trace(store, place, weights), how, store)
    except Exception as error:
        if not is_away(error):
            raise
        return check(questions, Lineage((), ("what it was trained on, while the record cannot be reached",)), how, None)


class _Search:
    """The questions, and what was found of them so far."""

    def __init__(self, questions: Sequence[Question], how: Overlap) -> None:
        self._threshold = how.threshold
        self._references = [{_plain(each) for each in one.references} for one in questions]
        self._places = defaultdict[str, list[int]](list)
        """What is asked -> the questions that ask it."""
        for place, one in enumerate(questions):
            self._places[_key(_texts(one))].append(place)
        self._bare = {_bare(_texts(one)) for one in questions}
        self._common = {
            key for key, places in self._places.items() if len({frozenset(self._references[each]) for each in places}) > 1
        }
        self._index = Index([self._told(one) for one in questions], how.words)
        self.trained: list[Met | None] = [None] * len(questions)
        self.chose: list[Met | None] = [None] * len(questions)

    def _told(self, one: Question) -> str:
        """What tells a question from others: what it asks, and its reference where others ask the same."""
        texts = _texts(one)
        return "\n".join([*texts, *(one.references if _key(texts) in self._common else ())])

    def through(self, file: trained.Kept) -> None:
        """Read a file's rows once."""
        for begin, part in enumerate(chunks(file.rows())):
            said = [_said(row, where) for where, row in part]
            found = [(place, *hit) for place, one in enumerate(said) for hit in self._exact(one)]
            if self._index:
                shares = self._index.shares([one.whole for one in said], self._threshold)
                found += [(place, asked, How.words, share) for place, asked, share in shares]
            for place, asked, how, share in found:
                where, row = part[place]
                for used in file.users:
                    self._note(asked, Met(how, share, file.name, where, used.run), used, begin * CHUNK + place, row)

    def _exact(self, said: _Said) -> Iterator[tuple[int, How, float]]:
        """Questions that a row asks too; where several ask the same and differ in their answers, the answer must be theirs."""
        for turns, answer in said.asked:
            if _bare(turns) not in self._bare:  # much faster than the whole comparison
                continue
            key = _key(turns)
            for place in self._places.get(key, ()):
                is_answered = _plain(answer) in self._references[place]
                if is_answered or key not in self._common:
                    yield place, How.answered if is_answered else How.question, 1.0

    def _note(self, asked: int, met: Met, used: Used, place: int, row: Row) -> None:
        into = self.trained if used.context == "training" else self.chose
        best = into[asked]
        if (best is None or (met.how, met.share) > (best.how, best.share)) and trained.belongs(used, place, row):
            into[asked] = met


class _Said(NamedTuple):
    """What a training row says."""

    asked: list[tuple[list[str], str]]
    """Each prompt in it, as the texts of its turns, with the answer to it."""
    whole: str


def _said(row: Row, where: str) -> _Said:
    try:
        one = question(row, infer(row) or Kind.ppo, where)
    except UserError:  # of no known form: its texts still have words
        return _Said([], "\n".join(str(each) for each in row.values()))
    turns = [(str(turn.get("role")), str(turn.get("content") or "")) for turn in one.turns if turn.get("role") != "system"]
    texts = [text for _, text in turns]
    asked = [(texts[:place], text) for place, (role, text) in enumerate(turns) if role == "assistant" and place]
    asked += [(texts, each) for each in one.references or ("",)]
    rejected = [row["rejected"]] if isinstance(row.get("rejected"), str) else []
    return _Said(asked, "\n".join([*texts, *one.references, *rejected]))


def _texts(one: Question) -> list[str]:
    """What is asked, without the system's text, which many rows have."""
    return [str(turn.get("content") or "") for turn in one.turns if turn.get("role") != "system"]


def _plain(text: str) -> str:
    return unblanked(unicodedata.normalize("NFKC", text).casefold())


def _key(texts: Sequence[str]) -> str:
    return "\x1f".join(map(_plain, texts))


def _bare(texts: Sequence[str]) -> str:
    return "\x1f".join("".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)


def stamp(values: Sequence[float | None] | Callable[[Sequence[int]], float], seen: Sequence[bool | None]) -> Seen | None:
    """How a score depends on items that the model was trained on.

    Args:
        values: of each item, where the score is the mean of those that have one (no other counts); else what makes the score of
            the items at some places, such as `lambda places: bleu.score([items[each] for each in places]).total["bleu"]`.
        seen: of each item, from `Checked.seen`; empty where nobody looked.

    Returns:
        None where nothing was found and a part of the model's past is not known.
    """
    if not seen:
        return None
    if not callable(values):
        there = [(value, was) for value, was in zip(values, seen, strict=True) if value is not None]
        kept = [value for value, _ in there]
        return stamp(lambda places: math.fsum(kept[each] for each in places) / len(places), [was for _, was in there])
    if not any(each is not None for each in seen):
        return None
    rest = [place for place, was in enumerate(seen) if not was]
    return Seen(1 - len(rest) / len(seen), values(rest) if rest else None)
