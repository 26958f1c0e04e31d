"""Rows by which units are judged, and others by which what became of the model is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm import digest
from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind, infer, own
from mlops_llm.data.read import Read, Source
from mlops_llm.data.ref import open_dataset
from mlops_llm.data.split import drawn_order
from mlops_llm.errors import UserError
from mlops_llm.models.template import Encoded
from mlops_llm.record import DatasetInput
from mlops_llm.surgery.pruning.texts import TEXTS

LONGEST = 512
"""Tokens of a row that are looked at."""
SHORTEST = 2
HELD = 20
"""Rows, at most, that are held out to measure by."""
BUILT_IN = "built-in texts"


@dataclass(frozen=True)
class Calibration:
    """Encoded rows."""

    name: str
    seen: Sequence[Encoded]
    """Rows by which units are judged."""
    held: Sequence[Encoded]
    """Other rows, by which the model is measured before and after: its answers where a row has one, else the whole text."""
    inputs: tuple[DatasetInput, ...] = ()
    """The rows as the record names them; none of built-in texts."""

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
        tokens = sum(len(one.ids) for one in self.seen)
        return f"{len(self.seen)} rows ({tokens} tokens) of {self.name}, {len(self.held)} others to measure by"


def calibration(ref: str | None, samples: int, tokenizer: Any, *, seed: int, how: Read) -> Calibration:
    """Draw and encode rows.

    Args:
        ref: a dataset of any kind; None takes the built-in texts.
        samples: rows to see, at most; of others a fifth of the dataset, up to 20, is held out, the same whatever `samples` is.
        tokenizer: the model's, with a chat template.
        seed: of the drawing.
        how: how the dataset's file is read.

    Raises:
        UserError: there are too few rows, or they are too short to show anything.
    """
    if ref is None:
        coded = [_text(tokenizer, each) for each in TEXTS]
        name, source, places = BUILT_IN, None, list(range(len(coded)))
        held = min(HELD, len(coded) // 5)
    else:
        source = open_dataset(ref, how)
        name, held = source.name, min(HELD, len(source.rows) // 5)
        places = drawn_order(source.rows, seed)[: samples + held]
        coded = [_row(tokenizer, source, place) for place in places]
    whole = [(place, one) for place, one in zip(places, coded, strict=True) if len(one.ids) >= SHORTEST]
    if not held or len(whole) <= held:
        what = f"has {len(coded)} rows, {len(whole)} of them with {SHORTEST} tokens or more, and 5 are needed"
        raise UserError(what, f"op.calibration={name}", "name more rows")
    part = whole[: held + samples]
    inputs = (_input(source, [place for place, _ in part]),) if source else ()
    return Calibration(name, [one for _, one in part[held:]], [one for _, one in part[:held]], inputs)


def _text(tokenizer: Any, text: str) -> Encoded:
    ids = list(tokenizer(text)["input_ids"])[:LONGEST]
    return Encoded(ids, ids)


def _row(tokenizer: Any, source: Source, place: int) -> Encoded:
    """A row as the model sees it; of one without an answer all is learned."""
    row, where = source.rows[place], source.where(place)
    kind = infer(row) or Kind.eval
    try:
        view = tokens.views(own(row, kind, where), kind)[0]
        one = tokens.encoded(tokenizer, view, LONGEST)
    except UserError as error:
        raise UserError(error.what, where, error.remedy) from error
    return one if one.trained else Encoded(one.ids, list(one.ids), one.cut)


def _input(source: Source, places: Sequence[int]) -> DatasetInput:
    digests = {"raw": source.raw, "canonical": digest.canonical(source.rows[place] for place in places)}
    return DatasetInput(source.name, source.version, str(source.path), "calibration", len(places), digests)
