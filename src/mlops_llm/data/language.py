"""Scripts of characters by Unicode block, and a guess of each text's language from them.

A guess by script cannot tell languages of one script apart: Latin counts as `en`, and Chinese text quoted in Japanese as `zh`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

SCRIPTS = ("other", "Han", "Latin", "Kana", "Hangul", "Cyrillic", "Arabic", "digits")
LANGUAGES = ("zh", "en", "ja", "ko", "ru", "ar", "mixed", "none")
_BLOCKS = {
    "Han": [(0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)],
    "Latin": [(0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F),
              (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A)],
    "Kana": [(0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)],
    "Hangul": [(0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF)],
    "Cyrillic": [(0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)],
    "Arabic": [(0x600, 0x65F), (0x66A, 0x6EF), (0x6FA, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF),
               (0xFE70, 0xFEFC)],
    "digits": [(0x30, 0x39), (0x660, 0x669), (0x6F0, 0x6F9), (0xFF10, 0xFF19)],
}  # fmt: skip
_LATIN_A_WORD = 4
"""Latin letters that say about as much as one Han character."""
_SHARE = 0.25
"""Share of a text that two scripts must both have for it to be mixed."""


@cache
def _table() -> Any:
    """Code point -> number of its script; characters of no script (blanks, punctuation) are 0."""
    import numpy as np

    table = np.zeros(0x110000, np.uint8)
    for name, blocks in _BLOCKS.items():
        for first, last in blocks:
            table[first : last + 1] = SCRIPTS.index(name)
    return table


def counts(texts: Sequence[str]) -> Any:
    """Characters of each script in each text: an array (texts, scripts), columns as `SCRIPTS`; blanks are not counted."""
    import numpy as np

    width = len(SCRIPTS)
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    kinds = _table()[codes]
    found = np.bincount(rows * width + kinds, minlength=len(texts) * width)
    blanks = np.bincount(rows[(codes == 0x20) | (codes == 0x0A) | (codes == 0x3000)], minlength=len(texts))
    shaped = found.reshape(len(texts), width)
    shaped[:, 0] -= blanks
    return shaped


def languages(counted: Any) -> Any:
    """A guess for each row of `counts`: numbers into `LANGUAGES`.

    Kana makes a text Japanese; else the script with most characters decides, and two with a quarter each make it mixed.
    """
    import numpy as np

    han, latin, kana, hangul, cyrillic, arabic = (
        counted[:, SCRIPTS.index(name)].astype(np.float64) for name in ("Han", "Latin", "Kana", "Hangul", "Cyrillic", "Arabic")
    )
    japanese = kana * 10 >= kana + han
    japanese &= kana > 0
    weights = np.stack(
        [np.where(japanese, 0, han + kana), latin / _LATIN_A_WORD, np.where(japanese, han + kana, 0), hangul, cyrillic, arabic]
    )
    total = weights.sum(0)
    ordered = np.sort(weights, axis=0)
    guess = weights.argmax(0)
    guess[(ordered[-2] >= _SHARE * total) & (total > 0)] = LANGUAGES.index("mixed")
    guess[total == 0] = LANGUAGES.index("none")
    return guess
