"""What a cell of a workbook can hold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mlops_llm import digest

LONGEST = 32_767
"""UTF-16 units of a text in a cell of Excel (Microsoft, Excel specifications and limits)."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for a formula."""
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ESCAPE = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
_ESCAPED = re.compile("(?:_x005F)+_")
_KEPT = 16
_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U0001f300-\U0003fffd]"
)
"""Characters that are as wide as they are high (Unicode, UAX 11: W and F)."""
_LETTER, _SPARE = 0.9, 1.05
"""Width of a letter beside a digit; lines that end early, since words are not broken."""


@dataclass
class Fitted:
    """Counts what was changed so that texts fit into cells."""

    cut: str
    """What ends a text that was cut."""
    replaced: int = 0
    """Characters that no workbook can hold."""
    shortened: int = 0
    """Texts that were too long."""

    def text(self, text: str) -> str:
        """A text as a cell can hold it: other characters become U+FFFD, and it is cut where it is too long."""
        text, count = _REFUSED.subn("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
        self.replaced += count
        if len(text) * 2 <= LONGEST or units(text) <= LONGEST:
            return text
        self.shortened += 1
        kept = text.encode("utf-16-le")[: 2 * (LONGEST - units(self.cut))]
        return kept.decode("utf-16-le", "ignore") + self.cut


def units(text: str) -> int:
    """Length of a text as Excel counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def width(text: str) -> float:
    """About how wide a text is, in digits, as columns are."""
    wide = _WIDE.subn("", text)[1]
    return 2 * wide + _LETTER * (len(text) - wide)


def lines(text: str, column: float) -> int:
    """About how many lines a text takes in a column of so many digits."""
    return sum(max(1, math.ceil(_SPARE * width(each) / column)) for each in text.split("\n"))


def escaped(text: str) -> str:
    """A text in which nothing is an escape of a workbook: `_x0041_` would be read as A (ECMA-376, 22.9.2.19)."""
    return _ESCAPE.sub("_x005F_", text)


def of_csv(text: str) -> str:
    """A text that no spreadsheet takes for a formula when it opens a CSV file."""
    return f"'{text}" if text.startswith(FORMULA) else text


def mark(text: str) -> str:
    """What a text is known by when a file comes back: neither blanks nor what programs add count."""
    text = _ESCAPED.sub("_", text).replace("_x000D_", "")
    if text.startswith("'") and text[1:].startswith(FORMULA):
        text = text[1:]
    return digest.text("".join(text.split()))[:_KEPT]
