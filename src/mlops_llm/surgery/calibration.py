"""Rows by which an operation looks at a model, and others by which what became of it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from mlops_llm import digest
from mlops_llm.data.chat import Conversation
from mlops_llm.data.kinds import Kind, infer, own
from mlops_llm.data.read import Source
from mlops_llm.data.ref import lasting, open_dataset
from mlops_llm.data.split import drawn_order
from mlops_llm.data.texts import sound
from mlops_llm.data.tokens import View, encoded, views
from mlops_llm.errors import UserError
from mlops_llm.models.template import Encoded
from mlops_llm.models.tensors import Shape
from mlops_llm.record import DatasetInput
from mlops_llm.surgery.config import Surgery

if TYPE_CHECKING:
    from mlops_llm.eval.questions import Question

HELD = 20
"""Rows, at most, that are held out to measure by."""
BUILT_IN = "built-in texts"
_PART = 5
"""One row of so many is held out, where fewer than HELD are."""
_SHORTEST = 2


@dataclass
class Calibrating:
    """Settings of an operation that looks at a model by rows."""

    calibration: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Rows like those that the model will meet, of any kind: the name of a dataset, NAME@LABEL, or a path. Without it pruning
    takes short texts that ship, and quantization refuses."""
    samples: int = 100
    """How many rows, drawn by the seed."""
    max_tokens: int = 512
    """Longer rows are cut there."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("samples", 1), ("max_tokens", 8)):
            if getattr(self, name) < least:
                raise UserError(f"is {getattr(self, name)}", f"op.{name}", f"give a whole number from {least}")


@dataclass(frozen=True)
class Calibration:
    """Encoded rows."""

    name: str
    seen: Sequence[Encoded]
    """Rows by which the model is looked at."""
    held: Sequence[Encoded] = ()
    """Other rows, by which it is measured before and after: its answers where a row has one, else the whole text."""
    asked: Sequence[Question] = ()
    """What those ask; none of built-in texts."""
    inputs: tuple[DatasetInput, ...] = ()
    """The rows as the record names them; none of built-in texts."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Setting of the operation -> ref of the same rows for ever."""

    @property
    def rows(self) -> list[list[int]]:
        """Token ids of the rows that are seen."""
        return [one.ids for one in self.seen]

    @property
    def digest(self) -> str:
        """Of what is seen and what is held out."""
        return digest.seen([(one.ids, one.labels) for one in [*self.seen, *self.held]])

    def __str__(self) -> str:
        """As a person reads it."""
        others = f", {len(self.held)} others to measure by" if self.held else ""
        return f"{len(self.seen)} rows of {self.name}, {sum(map(len, self.rows)):,} tokens{others}"


def drawn(
    how: Calibrating,
    request: Surgery,
    tokenizer: Any,
    layers: Mapping[str, Shape],
    *,
    hold: bool = False,
    texts: Sequence[str] = (),
) -> Calibration:
    """Draw and encode rows, as the model sees them: a conversation in its chat template, with its answer where there is one.

    As many tokens as the widest layer has columns are the fewest that tell all of its inputs apart (GPTQ; Frantar et al. 2023,
    arXiv:2210.17323, section 3: H = 2 X X^T): with fewer, some inputs are judged by what the others did.

    Args:
        how: which rows.
        request: the command, with seed, kind and how the dataset's file is read.
        tokenizer: the model's, with a chat template.
        layers: matrices that are looked at.
        hold: hold a fifth of the dataset out, up to 20 rows, the same whatever `samples` is.
        texts: what is taken where no dataset is named, as many as there are; without any, one must be named.

    Raises:
        UserError: no rows are named, or there are too few, or they are too short to show anything.
    """
    if how.calibration is None:
        return _of_texts(how, tokenizer, texts, hold=hold)
    source = open_dataset(how.calibration, request.read)
    held = min(HELD, len(source.rows) // _PART) if hold else 0
    _refuse_few(how, source, held if hold else None)
    places = drawn_order(source.rows, request.seed)[: held + how.samples]
    coded = [_row(tokenizer, source, place, request.kind, how.max_tokens) for place in places]
    _refuse_short(how.calibration, coded[held:], layers)
    pins = {"calibration": lasting(source, how.calibration)}
    asked = [_question(source, place, request.kind) for place in places[:held]]
    return Calibration(source.name, coded[held:], coded[:held], asked, (_input(source, places),), pins)


def _refuse_few(how: Calibrating, source: Source, held: int | None) -> None:
    count, where = len(source.rows), str(how.calibration)
    if held == 0:
        raise UserError(f"has {count} rows, and {_PART} are needed, one of which is held out", where, "name more rows")
    if count - (held or 0) < how.samples:
        beside = f" beside {held} that are held out" if held else ""
        what = f"has {count} rows, and {how.samples} are wanted{beside}"
        raise UserError(what, where, f"op.samples={count - (held or 0)}, or name more rows")


def _refuse_short(ref: str, coded: Sequence[Encoded], layers: Mapping[str, Shape]) -> None:
    name = max(layers, key=lambda each: layers[each].shape[-1])
    columns, tokens = layers[name].shape[-1], sum(len(one.ids) for one in coded)
    if tokens < columns:
        what = f"{len(coded)} rows have {tokens} tokens together, fewer than {name.removesuffix('.weight')} has columns"
        raise UserError(f"{what} ({columns})", ref, "give more or longer rows: op.samples=, op.max_tokens=")


def _of_texts(how: Calibrating, tokenizer: Any, texts: Sequence[str], *, hold: bool) -> Calibration:
    if not texts:
        remedy = "name rows like those that the model will meet: op.calibration=REF op.samples=100"
        raise UserError("names no rows", "op.calibration", remedy)
    ids = [list(tokenizer(each)["input_ids"])[: how.max_tokens] for each in texts]
    coded = [Encoded(each, each) for each in ids]
    held = min(HELD, len(coded) // _PART) if hold else 0
    return Calibration(BUILT_IN, coded[held : held + how.samples], coded[:held])


def _row(tokenizer: Any, source: Source, place: int, kind: Kind | None, most: int) -> Encoded:
    """A row as the model sees it; of one without an answer all is learned.

    Raises:
        UserError: it is not of this kind, the template cannot render it, or nothing is left of it.
    """
    row, where = source.rows[place], source.where(place)
    kind = kind or infer(row) or Kind.eval
    view, answers = views(own(row, kind, where), kind)[0], _question(source, place, kind).references
    turns, tools = list(view.chat.messages), view.chat.tools
    if kind is Kind.kto and not answers:  # an answer that is not wanted is none
        view = View("", Conversation(turns[:-1], tools), False)
    elif not view.answered and answers:
        view = View("", Conversation([*turns, {"role": "assistant", "content": sound(answers[0])}], tools), True)
    try:
        coded = encoded(tokenizer, view, most)
    except UserError as error:
        raise UserError(error.what, where, error.remedy) from error
    if len(coded.ids) < _SHORTEST:
        raise UserError(f"has fewer than {_SHORTEST} tokens", where, "leave the row out")
    return coded if coded.trained else Encoded(coded.ids, list(coded.ids), coded.cut)


def _question(source: Source, place: int, kind: Kind | None) -> Question:
    from mlops_llm.eval.questions import question

    row = source.rows[place]
    return question(row, kind or infer(row) or Kind.eval, source.where(place))


def _input(source: Source, places: Sequence[int]) -> DatasetInput:
    digests = {"raw": source.raw, "canonical": digest.canonical(source.rows[place] for place in places)}
    return DatasetInput(source.name, source.version, str(source.path), "calibration", len(places), digests)
