"""What is asked and what is answered in a row of any kind, as texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlops_llm.data.read import Row

MARKS = {"tools": "\x1c", "tool": "\x1d", "system": "\x1e", "user": "\x1f", "assistant": "\x1f"}
"""What stands before a turn of each role where texts are compared: separators that no text holds, so that two rows have one
text only if they have the same turns by the same roles."""


def sides(row: Row, *, marked: bool = False) -> tuple[str, str, str | None]:
    """All that is asked and all that is answered in a row, and its checkable solution or None.

    Lone surrogates become `?`, since Arrow holds UTF-8, which has none.

    Args:
        row: a row in our fields.
        marked: turns are joined by `MARKS`, else by newlines.
    """
    solution = row.get("solution")
    turns = row.get("messages")
    if isinstance(turns, list):
        asked = [(_role(turn), _content(turn)) for turn in turns if _role(turn) != "assistant"]
        answered = [_content(turn) for turn in turns if _role(turn) == "assistant"]
    else:
        asked, answered = [("user", _plain(row.get("prompt")))], [_plain(row.get("response"))]
    if "chosen" in row:
        answered = [_plain(row.get("chosen")), _plain(row.get("rejected"))]
    elif "reference" in row:
        reference = row["reference"]
        answered = list(map(_plain, reference)) if isinstance(reference, list) else [_plain(reference)]
    if marked and row.get("system"):
        asked = [("system", _plain(row["system"])), *asked]
    if marked and row.get("tools"):
        asked = [("tools", _plain(row["tools"])), *asked]
    said = _joined([("assistant", text) for text in answered], marked)
    return sound(_joined(asked, marked)), sound(said), None if solution is None else sound(_plain(solution))


def _joined(pieces: list[tuple[str, str]], marked: bool) -> str:
    if not marked:
        return "\n".join(text for _, text in pieces)
    return "".join(
        text if not place and role in ("user", "assistant") else MARKS.get(role, MARKS["user"]) + text
        for place, (role, text) in enumerate(pieces)
    )


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _role(turn: Any) -> str:
    return str(turn.get("role")) if isinstance(turn, Mapping) else ""


def _content(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        return _plain(turn)
    called = turn.get("tool_calls")
    return _plain(turn.get("content")) + (_plain(called) if called else "")


def sound(text: str) -> str:
    """A text that is UTF-8: lone surrogates become `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
