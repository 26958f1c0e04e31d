"""Preference pairs in any known shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_llm.data.asked import answered, as_prompt, made, prompt, read_by, tooled
from mlops_llm.data.chat import headed, text_of, turns_of
from mlops_llm.data.rows import SHOWN, Row
from mlops_llm.errors import UserError


def pair(row: Row, where: str) -> Row:
    """Preference pairs: texts; alpaca and sharegpt forms; or whole conversations that differ in the last turn."""
    chosen, rejected = (_answer(row, field, where) for field in ("chosen", "rejected"))
    if isinstance(row.get("prompt"), str) and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        text_of(row, "prompt", where)
        return tooled(row, where)
    told = _told(row, where)
    asked = as_prompt(headed(told, row, where), row, where) if told else prompt(row, where)
    if answered(asked):
        raise UserError("has an answer before 'chosen'", where, "end what is asked with a turn by the user")
    read = {"chosen", "rejected"} | read_by(row)
    if row.get("messages") in (row["chosen"], row["rejected"]):
        read.add("messages")
    return made({**asked, "chosen": chosen, "rejected": rejected}, row, read, where)


def _told(row: Row, where: str) -> list[dict[str, Any]]:
    """The turns before the answers where 'chosen' or 'rejected' tells them; empty where neither does.

    Raises:
        UserError: the two begin otherwise, or the row's own prompt is another.
    """
    sides = {
        side: turns_of(row[side], side, where)
        for side in ("chosen", "rejected")
        if isinstance(row[side], list) and len(row[side]) > 1
    }
    if not sides:
        return []
    if len(sides) == 2 and sides["chosen"][:-1] != sides["rejected"][:-1]:
        raise UserError("asks otherwise in 'chosen' than in 'rejected'", where, "let both begin with the same turns")
    side, turns = next(iter(sides.items()))
    field = next((field for field in ("prompt", "messages", "conversations", "instruction", "question") if field in row), "")
    if not field:
        return turns[:-1]
    asked = prompt({key: value for key, value in row.items() if key != "system"}, where)
    first = asked.get("messages") or [{"role": "user", "content": asked["prompt"]}]
    system = first[:1] if first[0]["role"] == "system" and turns[0]["role"] != "system" else []
    skipped = int(turns[0]["role"] == "system" and first[0]["role"] != "system")
    if list(map(_said, first)) != list(map(_said, [*system, *turns[skipped:]][: len(first)])):
        raise UserError(f"'{side}' does not begin with '{field}'", where, f"let it, or take '{field}' out")
    return [*system, *turns[:-1]]


def _said(turn: Mapping[str, Any]) -> tuple[str, str]:
    return turn["role"], str(turn.get("content") or "").strip()


def _answer(row: Row, field: str, where: str) -> str:
    """An answer as a text: itself, a turn, or the last of several turns."""
    value = row.get(field)
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        if value.get("tool_calls") or value.get("from") == "function_call":
            raise UserError(f"field '{field}' calls a tool", where, "write the answer as a text, or take the row out")
        role = value.get("role", value.get("from", "assistant"))
        if role not in ("assistant", "gpt"):
            raise UserError(f"field '{field}' ends with a turn by {str(role)[:SHOWN]!r}", where, "end it with an answer")
        value = value.get("content", value.get("value"))
    return text_of({field: value} if value is not None else row, field, where)
