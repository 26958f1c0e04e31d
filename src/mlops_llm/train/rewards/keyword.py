"""Whether the answer holds the wanted words."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.component import component
from mlops_llm.data.read import Row
from mlops_llm.errors import UserError
from mlops_llm.train.reward import Answers, Ready, check_weight


@component("reward", "keyword")
@dataclass
class Keyword(Ready):
    """The share of the wanted words that the answer holds, less `penalty` for each unwanted one; from 0 to 1.

    The row's own `keywords` (a list, or a text with commas) go before `words`. Width and case do not count. A word is held
    wherever its characters stand together, as Chinese has no gaps between words: "cat" is in "category", too. Where no word
    is wanted and some are unwanted, the share is 1.
    """

    weight: float = 1.0
    """Factor of this reward in the sum of all."""
    words: list[str] = field(default_factory=list)
    """Wanted words, e.g. [您好,保修]; for rows without `keywords`."""
    unwanted: list[str] = field(default_factory=list)
    """Words that an answer should not hold."""
    penalty: float = 0.5
    """What each unwanted word costs."""

    def __post_init__(self) -> None:
        """Check the ranges and the words."""
        check_weight(self.weight, "keyword")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise UserError(f"is {self.penalty}", "reward.keyword.penalty", "give a number from 0")
        for name, words in (("words", self.words), ("unwanted", self.unwanted)):
            if not all(isinstance(each, str) and each.strip() for each in words):
                raise UserError("holds an empty word", f"reward.keyword.{name}", "write it as [您好,保修]")
        if both := sorted(_plain(self.words) & _plain(self.unwanted)):
            remedy = "take it out of reward.keyword.words or of this"
            raise UserError(f"holds {both[0]}, which is wanted as well", "reward.keyword.unwanted", remedy)

    def check(self, rows: Sequence[Row]) -> list[str | None]:
        """Why there is no word to look for in the answers to a row.

        Raises:
            UserError: there is none for any row.
        """
        found = [self._problem(row) for row in rows]
        if all(found) and not (self.words or self.unwanted):
            said = f" (the first: {found[0]})" if found else ""
            remedy = "name words, e.g. 'reward.keyword.words=[您好,保修]', or give the rows a field 'keywords'"
            raise UserError(f"there is no word to look for{said}", "reward.keyword.words", remedy)
        return found

    def score(self, answers: Answers) -> list[float | None]:
        """0 to 1 of each answer; None where no word is named for its row."""
        unwanted = _plain(self.unwanted)
        return [
            None if self._problem(row) else share(completion, self._wanted(row), unwanted, self.penalty)
            for completion, row in zip(answers.completions, answers.rows, strict=True)
        ]

    def _wanted(self, row: Row) -> set[str]:
        return _plain(_listed(row.get("keywords")) or self.words)

    def _problem(self, row: Row) -> str | None:
        if _listed(row.get("keywords")) is None:
            return f"'keywords' is of type {type(row['keywords']).__name__}, not a list of words"
        return None if self._wanted(row) or self.unwanted else "has no 'keywords'"


def share(text: str, wanted: set[str], unwanted: set[str], penalty: float) -> float:
    """Share of the wanted words in a text, less the penalties, within 0 and 1; words are in small letters and NFKC."""
    plain = _fold(text)
    held = sum(each in plain for each in wanted) / len(wanted) if wanted else 1.0
    return min(1.0, max(0.0, held - penalty * sum(each in plain for each in unwanted)))


def _listed(value: Any) -> list[str] | None:
    """A row's words, without the empty ones; None for what is no list of words."""
    if value is None:
        return []
    words = re.split(r"[,，、;；\n]", value) if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
        return None
    return [each for each in words if each.strip()]


def _plain(words: Sequence[str]) -> set[str]:
    return {_fold(each) for each in words}


def _fold(text: str) -> str:
    """NFKC in small letters, each run of blanks as one."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())
