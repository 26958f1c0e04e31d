"""Answers to a few held-out prompts, for people to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_llm.data.kinds import Kind, kind_of
from mlops_llm.eval.questions import Question, question
from mlops_llm.files import write_text
from mlops_llm.record import Run
from mlops_llm.train import ranks
from mlops_llm.train.answers import answers
from mlops_llm.train.config import Samples
from mlops_llm.train.plan import Part, Plan


class GivenAnswers:
    """The table of a few answers before and after."""

    def __init__(self, plan: Plan, output: Path, model: Any) -> None:
        """Answer for the first time; a resumed run reads the answers that it gave when it began."""
        self._tokenizer, self._most = plan.tokenizer, plan.settings.samples.max_new_tokens
        part = plan.validation if ranks.first() and not plan.settings.distributed.sharded else None
        self._asked = chosen(part, plan.settings.algo.kinds, plan.settings.samples)
        self._before = before(output / "samples_before.json", model, plan.tokenizer, self._asked, self._most)

    def record(self, run: Run, model: Any) -> None:
        """Answer again and keep the table."""
        if self._asked:
            after = answers(model, self._tokenizer, self._asked, self._most)
            run.artifact("samples.json", table(self._asked, self._before, after))


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
