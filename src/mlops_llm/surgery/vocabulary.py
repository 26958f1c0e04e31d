"""Vocabularies of models that are merged: which row of an embedding is which token's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.surgery.planning import Source

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3


class Vocabulary(Enum):
    """What becomes of vocabularies that differ."""

    refuse = "refuse"
    """The models are not merged."""
    first = "first"
    """The result has that of the first model."""
    union = "union"
    """The result has the tokens of all: the first model's keep their ids, the others' follow."""


@dataclass(frozen=True)
class Joined:
    """One vocabulary for several models."""

    rows: tuple[tuple[int, ...], ...]
    """For each model: its own id of each row of the result, -1 where it has none."""
    tokenizer: str = ""
    """tokenizer.json of the result; empty where the first model's stays."""

    @property
    def size(self) -> int:
        """Rows of the result's embeddings."""
        return len(self.rows[0])

    def aligned(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Embeddings of all models with the rows of the result.

        A token that a model does not have gets the mean of those that have it, so that it counts for nothing in a merge.
        """
        import torch

        places = [torch.tensor(rows) for rows in self.rows]
        has = [place >= 0 for place in places]
        found = [
            torch.where(have.unsqueeze(1), each[place.clamp(min=0)], 0)
            for each, place, have in zip(tensors, places, has, strict=True)
        ]
        lacking = torch.stack(has).all(0).logical_not().nonzero().squeeze(1)
        if len(lacking):
            total = torch.stack([each[lacking].float() for each in found]).sum(0)
            count = torch.stack([have[lacking] for have in has]).sum(0).clamp(min=1).unsqueeze(1)
            for each, have in zip(found, has, strict=True):
                mine = have[lacking].unsqueeze(1)
                each[lacking] = torch.where(mine, each[lacking], (total / count).to(each.dtype))
        return found


def joined(sources: Sequence[Source], rows: Sequence[int], how: Vocabulary) -> Joined | None:
    """Bring vocabularies together; None where they are one already.

    Args:
        sources: the models.
        rows: of each model's embeddings, which may be more than there are tokens.
        how: what becomes of differing ones.

    Raises:
        UserError: they differ, and are to be refused; or they cannot be joined.
    """
    if len(set(rows)) == 1 and len({_written(each) for each in sources}) == 1:
        return None
    tokenizers = [load.tokenizer_of(each.files) for each in sources]
    ids = [tokenizer.get_vocab() for tokenizer in tokenizers]
    if len(set(rows)) == 1 and all(each == ids[0] for each in ids):
        return None
    if how is Vocabulary.refuse:
        _refuse(sources, ids, rows)
    if how is Vocabulary.first:
        return Joined(_rows(ids[0], rows[0], ids, rows))
    return _union(sources[0], tokenizers, ids, rows)


def _written(source: Source) -> str:
    file = load.with_tokenizer(source.files).place.folder / "tokenizer.json"
    return digest.raw(file) if file.is_file() else source.ref


def _refuse(sources: Sequence[Source], ids: Sequence[dict[str, int]], rows: Sequence[int]) -> None:
    for other, of_other, count in zip(sources[1:], ids[1:], rows[1:], strict=True):
        if of_other == ids[0] and count == rows[0]:
            continue
        named = [
            f"{each.ref} has {len(found)} tokens in {size} rows"
            for each, found, size in ((sources[0], ids[0], rows[0]), (other, of_other, count))
        ]
        told = [
            f"only in {whose.ref}: {', '.join(sorted(more, key=lambda token: there[token])[:_SHOWN])}"
            for whose, more, there in (
                (other, {*of_other} - {*ids[0]}, of_other),
                (sources[0], {*ids[0]} - {*of_other}, ids[0]),
            )
            if more
        ]
        moved = next((token for token in ids[0] if token in of_other and of_other[token] != ids[0][token]), None)
        if moved is not None and not told:
            told = [f"'{moved}' is number {ids[0][moved]} in one and {of_other[moved]} in the other"]
        raise UserError(
            f"vocabularies differ: {'; '.join([*named, *told])}",
            "models",
            f"op.vocabulary=first keeps that of {sources[0].ref}, op.vocabulary=union takes the tokens of all",
        )


def _rows(wanted: dict[str, int], size: int, ids: Sequence[dict[str, int]], rows: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each model: its own id of each row. Rows without a token are their own in those that have such a row there too."""
    tokens: list[str | None] = [None] * size
    for token, place in wanted.items():
        tokens[place] = token
    found = []
    for own, count in zip(ids, rows, strict=True):
        taken = {*own.values()}
        spare = [place < count and place not in taken for place in range(size)]
        found.append(
            tuple(
                (place if spare[place] else -1) if token is None else own.get(token, -1) for place, token in enumerate(tokens)
            )
        )
    return tuple(found)


def _union(first: Source, tokenizers: Sequence[Any], ids: Sequence[dict[str, int]], rows: Sequence[int]) -> Joined:
    told = json.loads(tokenizers[0].backend_tokenizer.to_str())
    if not isinstance(told["model"].get("vocab"), dict):
        raise UserError(
            f"the vocabulary of {first.ref} ({told['model'].get('type')}) cannot be added to", "op.vocabulary", "take first"
        )
    # tokenizers number added tokens anew unless the vocabulary has them too.
    told["model"]["vocab"] |= {each["content"]: each["id"] for each in told["added_tokens"]}
    wanted = dict(ids[0])
    free = max(wanted.values()) + 1
    for tokenizer, own in zip(tokenizers[1:], ids[1:], strict=True):
        added = {each["content"]: each for each in json.loads(tokenizer.backend_tokenizer.to_str())["added_tokens"]}
        for token in sorted({*own} - {*wanted}, key=lambda token: own[token]):
            wanted[token] = free
            told["model"]["vocab"][token] = free  # without merges: it has a row, but no text becomes it
            if token in added:
                told["added_tokens"].append({**added[token], "id": free})
            free += 1
    size = max(rows[0], free)
    return Joined(_rows(wanted, size, ids, rows), json.dumps(told, ensure_ascii=False))
