"""What counts as a word where texts are compared, in any language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import regex

_UNSPACED = r"\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts besides Han that put no blanks between words."""
_WORD = regex.compile(rf"[\p{{Han}}{_UNSPACED}]\p{{M}}*|(?:(?![\p{{Han}}{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+")
_WESTERN = re.compile(r"[\x00-\u02ff\u2000-\u206f]*")
_WESTERN_WORD = re.compile(r"[^\W_]+")
"""Finds the same in texts of Latin letters, ten times as fast."""
_HAN = regex.compile(r"\p{Han}")
_OTHER = regex.compile(rf"[{_UNSPACED}]")
_BESIDE = regex.compile(rf"(?<=[\p{{Han}}{_UNSPACED}\p{{P}}])\s+|\s+(?=[\p{{Han}}{_UNSPACED}\p{{P}}])")
_LETTER = rf"(?![\p{{Han}}{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}]"
"""A letter or digit of a script that puts blanks between words."""


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits; where a script puts no blanks, single characters.

    Width does not count (NFKC), punctuation is dropped. Of texts in ASCII these are the tokens of the package rouge_score.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return list((_WESTERN_WORD if _WESTERN.fullmatch(text) else _WORD).findall(text))


def is_unspaced(word: str) -> bool:
    """Whether one of `words` is a character of a script that puts no blanks between words."""
    return bool(_HAN.match(word) or _OTHER.match(word))


def tokenization(texts: Iterable[str]) -> str:
    """The name of sacrebleu's tokenizer that fits some texts.

    `char` where they have kana (or Thai, Lao, Khmer, Burmese), since its Chinese one leaves these whole; `zh` where they have
    Chinese characters, which it splits while Latin words stay whole; else `13a`.
    """
    found = "13a"
    for text in texts:
        if _OTHER.search(text):
            return "char"
        if _HAN.search(text):
            found = "zh"
    return found


def unblanked(text: str) -> str:
    """A text with single blanks, and none beside punctuation or characters of a script that puts none between words."""
    return str(_BESIDE.sub("", " ".join(text.split())))


def plain(text: str, ignore_case: bool = True, ignore_blanks: bool = True) -> str:
    """A text as others are compared with it: width does not count (NFKC), nor do case and blanks if so wished."""
    text = unicodedata.normalize("NFKC", text)
    text = text.casefold() if ignore_case else text
    return unblanked(text) if ignore_blanks else text


def named(text: str, phrases: Sequence[str]) -> set[int]:
    """Places of the phrases that a text names.

    They stand there as whole words (`rapist` is not in `therapist`, `8` not in `18` or `1.8`), where their script puts blanks
    between words. Width, case and blanks do not count, but a single letter keeps its case: the class `A` is no article. Of
    phrases within each other the longest counts, so that 不合格 does not name 合格.
    """
    looked = _looked(tuple(phrases))
    return {int(found.lastgroup[1:]) for found in looked.finditer(plain(text, ignore_case=False))} if looked else set()


@lru_cache(maxsize=256)
def _looked(phrases: tuple[str, ...]) -> Any:
    """A pattern whose groups are named by the places of the phrases; None where no phrase has a character."""
    bare = [(plain(phrase, ignore_case=False), place) for place, phrase in enumerate(phrases)]
    several = sorted(((phrase, place) for phrase, place in bare if phrase), key=lambda each: -len(each[0]))
    found = [f"(?P<_{place}>{_bounded(phrase)})" for phrase, place in several]
    return regex.compile("|".join(found)) if found else None


def _bounded(phrase: str) -> str:
    flags = "" if len(phrase) == 1 else "if"
    begin = rf"(?<!{_LETTER})" if regex.match(_LETTER, phrase) else ""
    end = rf"(?!{_LETTER})" if regex.match(_LETTER, phrase[-1]) else ""
    begin += r"(?<!\d[.,])" if phrase[0].isdecimal() else ""
    end += r"(?![.,]\d)" if phrase[-1].isdecimal() else ""
    return f"{begin}(?{flags}:{regex.escape(phrase)}){end}"
