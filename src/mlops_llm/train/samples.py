"""Answers to a few held-out prompts, for people to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_llm.data.kinds import Kind
from mlops_llm.files import write_text
from mlops_llm.train.answers import answers
from mlops_llm.train.config import Samples
from mlops_llm.train.examples import kind_of
from mlops_llm.train.plan import Part
from mlops_llm.train.questions import Question, question


def chosen(part: Part | None, kinds: Sequence[Kind], how: Samples) -> list[Question]:
    """The first held-out questions, each with a good answer as far as the row tells (of a pair, the chosen one)."""
    if part is None:
        return []
    rows, where = part.source.rows, part.source.where
    return [question(rows[place], kind_of(rows[place], kinds), where(place)) for place in part.rows[: how.count]]


def before(file: Path, model: Any, tokenizer: Any, asked: Sequence[Question], most: int) -> list[str]:
    """Answers before training; a resumed run reads those that it gave when it began."""
    if not asked:
        return []
    if file.is_file():
        return list(json.loads(file.read_text("utf-8")))
    given = answers(model, tokenizer, asked, most)
    write_text(file, json.dumps(given, ensure_ascii=False))
    return given


def table(asked: Sequence[Question], before: list[str], after: list[str]) -> dict[str, list[str]]:
    """Columns of the table that a person reads."""
    return {
        "prompt": [one.text for one in asked],
        "before": before,
        "after": after,
        "reference": ["\n".join(one.references) for one in asked],
    }
