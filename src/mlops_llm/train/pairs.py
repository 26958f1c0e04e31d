"""Scores of a few held-out pairs before and after the training of a reward model, for people to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlops_llm.data import tokens
from mlops_llm.data.kinds import Kind, own
from mlops_llm.files import write_text
from mlops_llm.models.scores import scores
from mlops_llm.record import Run
from mlops_llm.train.plan import Plan


class ScoredPairs:
    """The table of a few pairs with their scores."""

    def __init__(self, plan: Plan, output: Path, model: Any) -> None:
        """Score the pairs for the first time; a resumed run reads the scores that it gave when it began."""
        part, count = plan.validation, plan.settings.samples.count
        rows = [own(part.source.rows[row], Kind.dpo, part.source.where(row)) for row in part.rows[:count]] if part else []
        self._sides = [tokens.views(row, Kind.dpo) for row in rows]
        self._most, self._batch = plan.settings.algo.max_tokens, plan.settings.trainer.batch_size
        self._tokenizer = plan.tokenizer
        file = output / "pairs_before.json"
        if not file.is_file():
            write_text(file, json.dumps(self._scores(model)))
        self._before = json.loads(file.read_text("utf-8"))

    def record(self, run: Run, model: Any) -> None:
        """Score the pairs again and keep the table."""
        if not self._sides:
            return
        columns: dict[str, list[Any]] = {"prompt": [str(chosen.chat.messages[-2]["content"]) for chosen, _ in self._sides]}
        columns |= {
            side.name: [str(sides[place].chat.messages[-1]["content"]) for sides in self._sides]
            for place, side in enumerate(self._sides[0])
        }
        for when, found in (("before", self._before), ("after", self._scores(model))):
            columns |= {f"{name} {when}": [round(each, 4) for each in values] for name, values in found.items()}
        run.artifact("pairs.json", columns)

    def _scores(self, model: Any) -> dict[str, list[float]]:
        """Side -> its score in each pair."""
        found = {}
        for views in zip(*self._sides, strict=True):
            texts = [tokens.encoded(self._tokenizer, each, self._most).ids for each in views]
            found[views[0].name] = scores(model, texts, self._tokenizer.pad_token_id, self._batch)
        return found
