"""Where an answer ends."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


def told_apart(tokenizer: Any, stop: Sequence[str]) -> tuple[list[int], list[str]]:
    """The stop texts that are one special token each, as ids, since no text shows these; and the others."""
    special = {str(token): place for place, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [special[each] for each in stop if each in special], [each for each in stop if each not in special]


def cut(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> tuple[str, int] | None:
    """The text before the first stop text, and how many tokens were needed to say that one whole; None where there is none."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    places = [text.find(each) for each in stop if each in text]
    if not places:
        return None

    def says(count: int) -> bool:
        said = tokenizer.decode(ids[:count], skip_special_tokens=True)
        return any(each in said for each in stop)

    return text[: min(places)], bisect_left(range(1, len(ids)), True, key=says) + 1
