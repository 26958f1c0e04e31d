"""The font of a PDF, and what it cannot draw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm.errors import need

FAMILY = "Noto Sans CJK SC"
_FACE = 2
"""Of the collection: simplified Chinese."""
_LONG = re.compile(r"[!-,.0->@-~]{31,}")
"""A word without a place where a line may end."""
_DIGEST = re.compile(r"[0-9a-f]{32,64}")
"""Stays in one piece: it is there to be copied."""
_HERE = "\u200b"


@dataclass
class Readable:
    r"""Makes texts of what the font can draw: any other character is written as its code, `\\u1f600`, and counted."""

    replaced: int = 0
    kinds: set[str] = field(default_factory=set)

    def text(self, said: str) -> str:
        """A text without a box in it, which can be broken into lines."""
        there = characters()
        said = said.replace("\r\n", "\n").replace("\t", "    ")
        return _LONG.sub(_parted, "".join(each if each in there else self._code(each) for each in said))

    def all(self, value: Any) -> Any:
        """Every text within lists and mappings; a picture (`svg`) stays, it has digits only."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping) and "svg" in value:
            return value
        if isinstance(value, Mapping):
            return {key: self.all(each) for key, each in value.items()}
        return [self.all(each) for each in value] if isinstance(value, list | tuple) else value

    def _code(self, character: str) -> str:
        self.replaced += 1
        self.kinds.add(character)
        return f"\\u{ord(character):04x}"


def _parted(found: re.Match[str]) -> str:
    word = found[0]
    return word if _DIGEST.fullmatch(word) else _HERE.join(word[place : place + 30] for place in range(0, len(word), 30))


@cache
def folder() -> Path:
    """Where the font is.

    Raises:
        UserError: it is not installed.
    """
    need("noto_cjk_sans_otc", "report")
    import noto_cjk_sans_otc

    return Path(str(noto_cjk_sans_otc.FONT_PATH)).parent


@cache
def characters() -> frozenset[str]:
    """What the font can draw, and the end of a line.

    Raises:
        UserError: the font is not installed.
    """
    import noto_cjk_sans_otc
    from fontTools.ttLib import TTFont

    with TTFont(folder() / noto_cjk_sans_otc.FONT_FILE, fontNumber=_FACE, lazy=True) as font:
        # C1 control characters have an empty glyph there, and the soft hyphen is not seen.
        drawn = {chr(code) for code in font.getBestCmap() if code >= 0x20 and not 0x7F <= code < 0xA0 and code != 0xAD}
    return frozenset(drawn | {"\n"})
