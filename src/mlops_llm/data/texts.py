"""What is asked and what is answered in a row of any kind, as texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlops_llm.data.read import Row

MARKS = {"tools": "\x1c", "tool": "\x1d", "system": "\x1e", "user": "\x1f", "assistant": "\x1f"}
"""What stands before a turn of each role where texts are compared: separators that no text holds, so that two rows have one
text only if they have the same turns by the same roles."""
TOOLS, CALLS, UNLEARNED, END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
"""Where texts are compared: before tools, the calls of a turn, the number of an answer that is not learned, and behind each.
No text holds these characters (Unicode keeps them free), and bringing spellings together leaves them."""
_NOTED = re.compile(f"{UNLEARNED}[^{END}]*{END}|[{TOOLS}{CALLS}{END}]")


def bare(text: str) -> str:
    """A compared text as a person may read it, and a model or a search by words: without what only comparing needs."""
    return _NOTED.sub("", text)


def spoken(row: Row, *, learned: bool = True) -> list[Any] | None:
    """The turns of a row in our fields; None where a prompt as a text stands for them.

    Args:
        row: a row in our fields.
        learned: its turns may hold the answer (sft, kto); of other kinds a prompt as a text goes before them.
    """
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        return None
    if not isinstance(row.get("prompt"), str):
        return turns
    answered = learned and not row.keys() & {"response", "chosen", "solution", "reference"}
    return turns if answered and _role(turns[-1]) == "assistant" else None


def sides(row: Row, *, marked: bool = False) -> tuple[str, str, str | None]:
    """All that is asked and all that is answered in a row, and its checkable solution or None.

    Lone surrogates become `?`, since Arrow holds UTF-8, which has none.

    Args:
        row: a row in our fields.
        marked: turns are joined by `MARKS`, else by newlines; tools, calls and answers that are not learned are marked too.
    """
    solution = row.get("solution")
    turns = spoken(row)
    if turns:
        asked = [(_role(turn), _content(turn, marked)) for turn in turns if _role(turn) != "assistant"]
        answered = [_content(turn, marked) for turn in turns if _role(turn) == "assistant"]
        if marked:
            weights = [turn.get("weight", 1) for turn in turns if _role(turn) == "assistant"]
            noted = [f"{UNLEARNED}{place}{END}" if weight == 0 else "" for place, weight in enumerate(weights)]
            answered = [note + text for note, text in zip(noted, answered, strict=True)]
    else:
        asked, answered = [("user", _plain(row.get("prompt")))], [_plain(row.get("response"))]
    if turns and row.keys() & {"chosen", "reference"}:
        asked = [(_role(turn), _content(turn, marked)) for turn in turns]
    if "chosen" in row:
        answered = [_plain(row.get("chosen")), _plain(row.get("rejected"))]
    elif "reference" in row:
        reference = row["reference"]
        answered = list(map(_plain, reference)) if isinstance(reference, list) else [_plain(reference)]
    if marked and row.get("system") and asked[:1] != [("system", row["system"])]:
        asked = [("system", _plain(row["system"])), *asked]
    if marked and row.get("tools"):
        asked = [("tools", TOOLS + _plain(row["tools"]) + END), *asked]
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


def _content(turn: Any, marked: bool) -> str:
    if not isinstance(turn, Mapping):
        return _plain(turn)
    called = _plain(turn["tool_calls"]) if turn.get("tool_calls") else ""
    return _plain(turn.get("content")) + (CALLS + called + END if called and marked else called)


def sound(text: str) -> str:
    """A text that is UTF-8: lone surrogates become `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
