"""What is asked and what is answered in a row of any kind, as texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlops_llm.data.read import Row


def sides(row: Row) -> tuple[str, str, str | None]:
    """All that is asked and all that is answered in a row (turns joined by newlines), and its checkable solution or None.

    Lone surrogates become `?`, since Arrow holds UTF-8, which has none.
    """
    solution = row.get("solution")
    turns = row.get("messages")
    if isinstance(turns, list):
        asked = "\n".join(_content(turn) for turn in turns if _role(turn) != "assistant")
        answered = "\n".join(_content(turn) for turn in turns if _role(turn) == "assistant")
    else:
        asked, answered = _plain(row.get("prompt")), _plain(row.get("response"))
    if "chosen" in row:
        answered = f"{_plain(row.get('chosen'))}\n{_plain(row.get('rejected'))}"
    elif "reference" in row:
        reference = row["reference"]
        answered = "\n".join(map(_plain, reference)) if isinstance(reference, list) else _plain(reference)
    return _sound(asked), _sound(answered), None if solution is None else _sound(_plain(solution))


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


def _sound(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
