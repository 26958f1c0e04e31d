"""How long answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.eval.metric import Item, Need, Ready, Scores


@component("metric", "length")
@dataclass
class Length(Ready):
    """Tokens and characters of an answer; the totals are means. Neither end is the good one.

    Tokens are those that the model wrote, its end mark included; models with other tokenizers compare by characters. There are
    none where a server does not count them.
    """

    names: ClassVar[tuple[str, ...]] = ("length_tokens", "length_characters")
    higher_is_better: ClassVar[bool | None] = None
    most: ClassVar[float | None] = None
    needs: ClassVar[Need] = Need.nothing

    def score(self, items: Sequence[Item]) -> Scores:
        """Both lengths of each answer, and their means.

        Raises:
            UserError: there are no answers.
        """
        self.check(items)
        found = {"length_tokens": [float(item.tokens) for item in items]}
        if any(item.answer and not item.tokens for item in items):
            found.clear()
        found["length_characters"] = [float(len(item.answer)) for item in items]
        total = {name: sum(values) / len(values) for name, values in found.items()}
        return Scores(total, found, "tokens:end mark included|characters:code points")
