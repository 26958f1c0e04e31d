"""Prompts that a model answers in a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind, kind_of, own
from mlops_llm.data.read import Row, Source
from mlops_llm.errors import UserError
from mlops_llm.models.template import IGNORED


@dataclass(frozen=True)
class Prompt:
    """What is asked; the answers are sampled."""

    ids: list[int]
    turns: list[dict[str, Any]]
    row: Row
    """The row in its kind's own fields."""
    cut: int = 0
    place: int = -1

    @property
    def sequences(self) -> list[list[int]]:
        """The prompt; answers are sampled."""
        return [self.ids]

    @property
    def labels(self) -> list[int]:
        """Nothing of a prompt is learned."""
        return [IGNORED] * len(self.ids)

    @property
    def trained(self) -> int:
        """Nothing of a prompt is learned."""
        return 0


def prompts(tokenizer: Any, source: Source, rows: Sequence[int], kinds: Sequence[Kind], most: int) -> list[Prompt]:
    """Prompts of at most `most` tokens; longer ones are left out, since a cut question is another one.

    Raises:
        UserError: a row asks nothing, or every prompt is too long.
    """
    found = []
    for place in rows:
        where = source.where(place)
        kind = kind_of(source.rows[place], kinds)
        row = own(source.rows[place], kind, where)
        try:
            (view,) = tokens.views(row, kind)
            coded = tokens.encoded(tokenizer, view, most)
        except UserError as error:
            raise UserError(error.what, where, error.remedy) from error
        found.append(Prompt(coded.ids, view.chat.messages, row, coded.cut, place))
    kept = [one for one in found if not one.cut]
    if found and not kept:
        longest = max(len(one.ids) + one.cut for one in found)
        raise UserError(
            f"every prompt is longer than {most} tokens",
            str(source.path),
            f"raise algo.max_prompt_tokens (the longest has {longest})",
        )
    return kept


def dataset(found: Sequence[Prompt]) -> Any:
    """Prompts as TRL wants them, each with its row."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [one.turns for one in found], "row": [json.dumps(one.row) for one in found]})
