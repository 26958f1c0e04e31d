"""What one row is to a training method: the token ids that the model sees, and which of them count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from mlops_llm.data import tokens
from mlops_llm.data.chat import conversation
from mlops_llm.data.kinds import Kind, kind_of, own
from mlops_llm.data.read import Row, Source
from mlops_llm.data.tokens import View
from mlops_llm.errors import UserError
from mlops_llm.models.template import IGNORED, Encoded, encode


class Example(Protocol):
    """One row as a training method sees it; `models.template.Encoded` is one."""

    @property
    def ids(self) -> list[int]:
        """All token ids."""

    @property
    def labels(self) -> list[int]:
        """As many as ids; `IGNORED` where nothing is learned."""

    @property
    def cut(self) -> int:
        """Tokens dropped because the row was too long."""

    @property
    def trained(self) -> int:
        """Tokens that are learned."""

    @property
    def place(self) -> int:
        """Number of the row in its file."""

    @property
    def sequences(self) -> list[list[int]]:
        """The token ids of each sequence that a forward pass sees of it."""


@dataclass(frozen=True)
class Answered:
    """A prompt and one answer to it."""

    prompt: list[int]
    answer: list[int]
    cut: int = 0
    wanted: bool = True
    """Whether the answer is a good one."""
    place: int = -1

    @property
    def sequences(self) -> list[list[int]]:
        """The one sequence."""
        return [self.ids]

    @property
    def ids(self) -> list[int]:
        """Prompt and answer."""
        return [*self.prompt, *self.answer]

    @property
    def labels(self) -> list[int]:
        """The answer's ids; of one that is not wanted none, so that the same answer with the other label is told apart."""
        return [IGNORED] * len(self.prompt) + (self.answer if self.wanted else [IGNORED] * len(self.answer))

    @property
    def trained(self) -> int:
        """Tokens of the answer."""
        return len(self.answer)


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse answer."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    cut: int = 0
    place: int = -1

    @property
    def longer(self) -> int:
        """Tokens of the prompt with the longer answer, to which both sides are padded."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def sequences(self) -> list[list[int]]:
        """The prompt with each answer."""
        return [[*self.prompt, *self.chosen], [*self.prompt, *self.rejected]]

    @property
    def ids(self) -> list[int]:
        """The prompt with the chosen answer, then with the rejected one."""
        return [*self.prompt, *self.chosen, *self.prompt, *self.rejected]

    @property
    def labels(self) -> list[int]:
        """Ids of both answers."""
        asked = [IGNORED] * len(self.prompt)
        return [*asked, *self.chosen, *asked, *self.rejected]

    @property
    def trained(self) -> int:
        """Tokens of both answers."""
        return len(self.chosen) + len(self.rejected)


T = TypeVar("T")
E = TypeVar("E", bound=Example)


def conversations(
    tokenizer: Any, source: Source, rows: Sequence[int], max_tokens: int, *, answers_only: bool = True
) -> list[Encoded]:
    """Conversations with their answers marked; rows whose answers were cut away entirely are left out.

    Raises:
        UserError: a row is not a conversation, or no row keeps a trained token.
    """
    made = []
    for place in rows:
        where = source.where(place)
        chat = conversation(source.rows[place], where)
        try:
            one = encode(tokenizer, chat.messages, tools=chat.tools, max_tokens=max_tokens, answers_only=answers_only)
        except UserError as error:
            raise UserError(error.what, where, error.remedy) from error
        made.append(replace(one, place=place))
    kept = [one for one in made if one.trained]
    if rows and not kept:
        cut = sum(1 for one in made if one.cut)
        raise UserError(
            f"no row has a token to train on ({cut} of {len(made)} rows were cut at {max_tokens} tokens)",
            str(source.path),
            f"raise algo.max_tokens (the longest row has {max(len(one.ids) + one.cut for one in made)})",
        )
    return kept


def pairs(tokenizer: Any, source: Source, rows: Sequence[int], max_tokens: int) -> list[Pair]:
    """Preference pairs; those of which no token of one answer is left are left out.

    Raises:
        UserError: a row is no pair, or none keeps a token of both answers.
    """

    def one(row: Row, kind: Kind) -> Pair:
        chosen, rejected = (_split(tokenizer, view, max_tokens) for view in tokens.views(row, kind))
        # Both sides share one prompt: what follows where they begin to differ belongs to the answers.
        asked = min(_common(chosen.ids, rejected.ids), len(chosen.prompt), len(rejected.prompt))
        cut = chosen.cut + rejected.cut
        return Pair(chosen.ids[:asked], chosen.ids[asked:], rejected.ids[asked:], cut)

    made = [replace(pair, place=place) for place, pair in zip(rows, _each(one, source, rows, (Kind.dpo,)), strict=True)]
    return _kept(made, lambda pair: bool(pair.chosen and pair.rejected), source, max_tokens)


def judged(tokenizer: Any, source: Source, rows: Sequence[int], max_tokens: int) -> list[Answered]:
    """Answers with whether they are wanted, two of each preference pair; those of which no token is left are left out.

    Raises:
        UserError: a row has no label, or none keeps a token of its answer.
    """

    def of(row: Row, kind: Kind) -> list[Answered]:
        split = [_split(tokenizer, view, max_tokens) for view in tokens.views(row, kind)]
        wanted = [True, False] if kind is Kind.dpo else [bool(row["label"])]
        return [replace(one, wanted=good) for one, good in zip(split, wanted, strict=True)]

    kinds = (Kind.kto, Kind.dpo)
    several = zip(rows, _each(of, source, rows, kinds), strict=True)
    made = [replace(one, place=place) for place, ones in several for one in ones]
    return _kept(made, lambda each: bool(each.answer), source, max_tokens)


def _each(make: Callable[[Row, Kind], T], source: Source, rows: Sequence[int], kinds: Sequence[Kind]) -> list[T]:
    """What is made of every row with its kind's own fields; an error names the row."""
    made = []
    for place in rows:
        where = source.where(place)
        kind = kind_of(source.rows[place], kinds)
        row = own(source.rows[place], kind, where)
        try:
            made.append(make(row, kind))
        except UserError as error:
            raise UserError(error.what, where, error.remedy) from error
    return made


def _kept(examples: list[E], whole: Callable[[E], bool], source: Source, max_tokens: int) -> list[E]:
    kept = [each for each in examples if whole(each)]
    if examples and not kept:
        raise UserError(
            f"no row keeps a token of its answers within {max_tokens} tokens",
            str(source.path),
            f"raise algo.max_tokens (the longest row has {max(len(each.ids) + each.cut for each in examples)})",
        )
    return kept


def _split(tokenizer: Any, view: View, max_tokens: int) -> Answered:
    """A conversation as its last answer and all before it; earlier answers belong to the prompt."""
    before = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in view.chat.messages[:-1]]
    chat = replace(view.chat, messages=[*before, view.chat.messages[-1]])
    coded = tokens.encoded(tokenizer, replace(view, chat=chat), max_tokens)
    place = next((place for place, label in enumerate(coded.labels) if label != IGNORED), len(coded.ids))
    return Answered(coded.ids[:place], coded.ids[place:], coded.cut)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
