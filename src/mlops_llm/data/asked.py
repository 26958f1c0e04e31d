"""What a row asks, whatever form it came in, in this project's own fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_llm.data.chat import headed, history, text_of, tools_of, turns_of
from mlops_llm.data.rows import Row, names
from mlops_llm.errors import UserError


def prompt(row: Row, where: str) -> Row:
    """What the row's own fields ask: a text with its system text, or turns, which may end with an answer."""
    field = next((field for field in ("prompt", "messages", "conversations") if field in row), "")
    if field and (field != "prompt" or isinstance(row["prompt"], list)):
        turns = turns_of(row[field], field, where, answered=False)
    else:
        field = next((field for field in ("prompt", "instruction", "question") if field in row), "prompt")
        said, before = text_of(row, field, where), list[dict[str, Any]]()
        if field == "instruction":
            said += f"\n{text_of(row, 'input', where)}" if row.get("input") else ""
            before = history(row, where)
        if not before and not tools_of(row, where):
            return {"prompt": said, **({"system": text_of(row, "system", where)} if row.get("system") else {})}
        turns = [*before, {"role": "user", "content": said}]
    return as_prompt(headed(turns, row, where), row, where)


def as_prompt(turns: list[dict[str, Any]], row: Row, where: str) -> Row:
    """Turns as what is asked: a text where one turn by the user says it all, else messages with their tools."""
    tools = tools_of(row, where)
    if len(turns) == 1 and turns[0]["role"] == "user" and is_plain(turns[0]) and not tools:
        return {"prompt": turns[0]["content"]}
    return {"messages": turns, **({"tools": tools} if tools else {})}


def unanswered(row: Row, where: str) -> Row:
    """What is asked, without the answer that the turns may end with."""
    asked = prompt(row, where)
    return as_prompt(asked["messages"][:-1], row, where) if answered(asked) else asked


def answered(asked: Row) -> bool:
    """Whether the turns end with an answer."""
    return bool(asked.get("messages")) and asked["messages"][-1]["role"] == "assistant"


def read_by(row: Row) -> set[str]:
    """The fields that say what is asked (and in a conversation what is answered), as `prompt` reads them."""
    beside = {"system", "tools"}
    for field in ("prompt", "messages", "conversations"):
        if field in row:
            return {field} | beside
    return ({"instruction", "input", "history"} if "instruction" in row else {"question"}) | beside


def is_plain(turn: Mapping[str, Any]) -> bool:
    """Whether a turn says who and what, and nothing else (no `weight`, no call of a tool)."""
    return all(value is None for key, value in turn.items() if key not in ("role", "content"))


def tooled(row: Row, where: str) -> Row:
    """The row with its tools as a list, if they were a JSON text; else the row itself."""
    tools = tools_of(row, where) if "tools" in row else None
    return {**row, "tools": tools} if tools and tools is not row["tools"] else row


def made(ours: Row, row: Row, read: set[str], where: str) -> Row:
    """Our fields with the row's other fields, which say something else.

    Raises:
        UserError: one of the others has the name of one of ours, and says something else than the fields that were read.
    """
    rest = {key: value for key, value in row.items() if key not in read}
    twice = next((key for key in ours if key in rest and rest[key] != ours[key]), None)
    if twice:
        told = names(key for key in row if key in read)
        remedy = "keep one of them, or map the columns: 'read.columns={prompt:COLUMN,response:COLUMN}'"
        raise UserError(f"field '{twice}' and {told} say different things", where, remedy)
    return {**ours, **rest}
