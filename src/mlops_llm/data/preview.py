"""Rows as a person reads them, and as the model sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Row
from mlops_llm.data.structure import ANSWERS
from mlops_llm.data.texts import spoken
from mlops_llm.data.tokens import View, encoded, views
from mlops_llm.errors import printable
from mlops_llm.models.template import IGNORED

LONGEST = 2000
"""Characters of a text that are shown."""
_BRACKET = re.compile(r"(\\*)\[([a-z#/@][^\[]*?\])?")
_COLOURS = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow", "chosen": "green", "rejected": "red",
            "solution": "green", "reference": "green", "label": "yellow"}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """One text as the model sees it."""

    name: str
    """`chosen` or `rejected` of a pair, else empty."""
    pieces: list[tuple[bool, str]]
    """Runs of text in order, and whether they are trained on."""
    ids: list[int]
    trained: int
    cut: int


def seen(row: Row, kind: Kind, tokenizer: Any, max_tokens: int) -> list[Seen]:
    """What the model sees of a row with its kind's own fields.

    Raises:
        UserError: the template cannot render it.
    """
    return [_seen(view, tokenizer, max_tokens) for view in views(row, kind)]


def _seen(view: View, tokenizer: Any, max_tokens: int) -> Seen:
    code = encoded(tokenizer, view, max_tokens)
    pairs = zip(code.ids, code.labels, strict=True)
    pieces = [
        (trained, str(tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)))
        for trained, run in groupby(pairs, lambda pair: pair[1] != IGNORED)
    ]
    return Seen(view.name, pieces, code.ids, code.trained, code.cut)


def read(row: Row, kind: Kind) -> Iterator[tuple[str, str]]:
    """A row as (who or what, text), in the order in which a person reads it."""
    turns = spoken(row, learned=kind in (Kind.sft, Kind.kto))
    if row.get("system") and not (turns and turns[0]["role"] == "system"):
        yield "system", _plain(row["system"])
    if turns:
        for turn in turns:
            called = "".join(f"\n→ {_plain(call.get('function', call))}" for call in turn.get("tool_calls") or [])
            yield str(turn["role"]), f"{turn.get('content') or ''}{called}".strip("\n")
    else:
        yield "user", _plain(row["prompt"])
    for field in (*ANSWERS[kind], "label"):
        if field in row and not (turns and field == "response"):
            yield "assistant" if field == "response" else field, _plain(row[field])


def marked(row: Row, kind: Kind) -> str:
    """`read` with rich's markup: each speaker in a colour, further lines of a text set in."""
    lines = []
    for who, said in read(row, kind):
        name = f"[bold {_COLOURS.get(who, 'white')}]{who[:9]:>9}[/]"
        lines.append(f"{name}  {safe(_short(said)).replace(chr(10), chr(10) + ' ' * 11)}")
    return "\n".join(lines)


def painted(text: Seen) -> str:
    """What the model sees with rich's markup: trained tokens between ⟦ and ⟧, and green where there are colours."""
    parts = []
    for trained, piece in text.pieces:
        shown = safe(_short(piece))
        if trained:
            parts.append(f"[bold green]⟦{shown}⟧[/]")
        else:
            # Backslashes before a tag count double.
            tail = len(shown) - len(shown.rstrip("\\"))
            parts.append(f"[dim]{shown}{shown[len(shown) - tail :]}[/]")
    return "".join(parts)


def safe(text: str) -> str:
    """Text that neither rich's markup nor a terminal takes for orders; no tag may follow a backslash at its end."""
    shown = "".join(each if each in "\n\t" else printable(each) for each in re.split(r"([\n\t])", text))
    return _BRACKET.sub(_disarmed, shown)


def _disarmed(found: re.Match[str]) -> str:
    slashes, inside = found[1], found[2]
    if inside:
        return f"{slashes * 2}\\[{inside}"
    return f"{slashes}\\[" if slashes else "["


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
