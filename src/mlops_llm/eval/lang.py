"""The two languages in which something is written for a person, side by side where it is said."""

from __future__ import annotations

from enum import Enum


class Lang(Enum):
    """Language of what is written for a person."""

    zh = "zh"
    """Chinese."""
    en = "en"
    """English."""

    def __call__(self, chinese: str, english: str) -> str:
        """The one of two texts that is in this language."""
        return chinese if self is Lang.zh else english

    def listed(self, words: list[str]) -> str:
        """Words in a row."""
        return self("、", ", ").join(words)

    def quoted(self, name: str) -> str:
        """A name within a sentence."""
        return self(f"“{name}”", f"'{name}'")
