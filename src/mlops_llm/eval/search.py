"""The search for questions among all rows that a model was trained on: every file is read once, whatever is looked for."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mlops_llm.data.kinds import Kind, infer
from mlops_llm.data.read import Row
from mlops_llm.data.ref import record
from mlops_llm.data.tokens import CHUNK, chunks
from mlops_llm.errors import UserError
from mlops_llm.eval import trained
from mlops_llm.eval.ngrams import Index, Texts
from mlops_llm.eval.overlap import Checked, How, Met, Overlap
from mlops_llm.eval.questions import Question, question
from mlops_llm.eval.words import unblanked
from mlops_llm.models.ref import Place
from mlops_llm.tracking.lineage import Lineage, Used, trace
from mlops_llm.tracking.store import is_away

if TYPE_CHECKING:
    from mlops_llm.tracking.store import Store

Sets = Sequence[Sequence[Question]]
"""Questions of several datasets or benchmarks; what those of one have in common is no matter of another."""


def check(sets: Sets, lineage: Lineage, how: Overlap, store: Store | None) -> list[Checked]:
    """Look for questions among all rows that a model was trained on; every file is read once, a few rows at a time.

    A row of the training part counts as met even if training ended before its turn.

    Args:
        sets: what is asked.
        lineage: what is behind the model.
        how: settings.
        store: the record, which keeps the versions.

    Returns:
        Of each set in its place what it would be told alone.
    """
    files, lost = trained.found(lineage, store)
    searches, searched = [_Search(questions, how) for questions in sets], list[str]()
    for file in files:
        try:
            _read(file, searches)
            searched.append(file.name)
        except (UserError, OSError) as error:
            lost.append(f"{file.name}: {trained.said(error)}")
    unknown, names = (*lineage.unknown, *lost), list(dict.fromkeys(searched))
    return [Checked(each.trained, each.chose, names, unknown, lineage.influences) for each in searches]


def of_model(sets: Sets, place: Place | None, weights: str, how: Overlap) -> list[Checked] | None:
    """`check` of a model by what the record of this folder knows of it; None where that is switched off.

    A record that is away is no reason to lose an evaluation: it is said, and leaves the answer open.

    Args:
        sets: what is asked.
        place: the model; None of one that answers at a server.
        weights: digest of the weights that lie there.
        how: settings.
    """
    if not how.check:
        return None
    if place is None:
        return check(sets, Lineage((), ("what a server's model was trained on",)), how, None)
    try:
        store = record()
        return check(sets, trace(store, place, weights), how, store)
    except Exception as error:
        if not is_away(error):
            raise
        return check(sets, Lineage((), ("what it was trained on, while the record cannot be reached",)), how, None)


def _read(file: trained.Kept, searches: Sequence[_Search]) -> None:
    """Show a file's rows to all searches, once."""
    for begin, part in enumerate(chunks(file.rows())):
        said = [_said(row, where) for where, row in part]
        texts = Texts([one.whole for one in said])
        for each in searches:
            each.look(file, part, begin * CHUNK, said, texts)


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

    def look(
        self, file: trained.Kept, part: Sequence[tuple[str, Row]], begin: int, said: Sequence[_Said], texts: Texts
    ) -> None:
        """Look at some rows of a file.

        Args:
            file: where they are.
            part: the rows.
            begin: number of the first of them.
            said: what they say.
            texts: all that each of them says.
        """
        found = [(place, *hit) for place, one in enumerate(said) for hit in self._exact(one)]
        if self._index:
            shares = self._index.shares(texts, self._threshold)
            found += [(place, asked, How.words, share) for place, asked, share in shares]
        for place, asked, how, share in found:
            where, row = part[place]
            for used in file.users:
                self._note(asked, Met(how, share, file.name, where, used.run), used, begin + place, row)

    def _exact(self, said: _Said) -> Iterator[tuple[int, How, float]]:
        """Questions that a row asks too; where several ask the same and differ in their answers, the answer must be theirs."""
        for turns, answer, bare in said.asked:
            if bare not in self._bare:  # much faster than the whole comparison
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

    asked: list[tuple[list[str], str, str]]
    """Each prompt in it, as the texts of its turns, with the answer to it, and the prompt without any blanks."""
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
    bare = [(asks, answer, _bare(asks)) for asks, answer in asked]
    return _Said(bare, "\n".join([*texts, *one.references, *rejected]))


def _texts(one: Question) -> list[str]:
    """What is asked, without the system's text, which many rows have."""
    return [str(turn.get("content") or "") for turn in one.turns if turn.get("role") != "system"]


def _plain(text: str) -> str:
    return unblanked(unicodedata.normalize("NFKC", text).casefold())


def _key(texts: Sequence[str]) -> str:
    return "\x1f".join(map(_plain, texts))


def _bare(texts: Sequence[str]) -> str:
    return "\x1f".join("".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)
