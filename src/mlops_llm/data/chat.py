"""Rows as conversations, whatever form they came in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_llm.component import near
from mlops_llm.data.rows import SHOWN, Row, names
from mlops_llm.errors import UserError

ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
             "tool": "tool", "observation": "tool", "function_call": "assistant"}  # fmt: skip
_SHAREGPT_TURN = ("from", "value", "weight", "loss", "role", "content", "tool_calls")
_BESIDE = ("system", "tools")


@dataclass(frozen=True)
class Conversation:
    """A conversation that ends with an answer."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None


def conversation(row: Row, where: str) -> Conversation:
    """Turn one row into a conversation.

    Understood are `prompt` and `response` (or `completion`), `messages`, and the public forms `question` and `answer` (gsm8k),
    `instruction`, `input`, `output` (alpaca) and `conversations` (sharegpt); beside each may stand `system` and `tools`.

    Raises:
        UserError: the row is none of these; `where`, field and remedy are named.
    """
    asked, answered = read_from(row)[:2]
    tools = tools_of(row, where)
    if asked in ("messages", "conversations"):
        return Conversation(headed(turns_of(row[asked], asked, where), row, where), tools)
    said = text_of(row, asked, where)
    before = []
    if asked == "instruction":
        said += f"\n{text_of(row, 'input', where)}" if row.get("input") else ""
        before = history(row, where)
    pair = [{"role": "user", "content": said}, {"role": "assistant", "content": text_of(row, answered, where)}]
    return Conversation(headed([*before, *pair], row, where), tools)


def read_from(row: Row) -> tuple[str, ...]:
    """The fields that `conversation` reads, some of which may not be there: what is asked, what is answered, and the rest."""
    for answer in ("response", "completion"):
        if "prompt" in row and answer in row:
            return "prompt", answer, *_BESIDE
    for field in ("messages", "conversations"):
        if field in row:
            return field, field, *_BESIDE
    if "instruction" in row:
        return "instruction", "output", "input", "history", *_BESIDE
    if "question" in row and "prompt" not in row:
        return "question", "answer", *_BESIDE
    return "prompt", "response", *_BESIDE


def headed(turns: list[dict[str, Any]], row: Row, where: str) -> list[dict[str, Any]]:
    """The turns after the row's own `system` text.

    Raises:
        UserError: it is no text, or the turns begin with another.
    """
    if not row.get("system"):
        return turns
    system = text_of(row, "system", where)
    if turns[0]["role"] != "system":
        return [{"role": "system", "content": system}, *turns]
    if turns[0]["content"] != system:
        said = str(turns[0]["content"])[:SHOWN]
        raise UserError(f"field 'system' ({system[:SHOWN]!r}) and the system turn ({said!r}) differ", where, "keep one of them")
    return turns


def history(row: Row, where: str) -> list[dict[str, Any]]:
    """The turns before an alpaca row's instruction: a list of [asked, answered]."""
    turns = []
    for place, pair in enumerate(row.get("history") or ()):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) and each.strip() for each in pair)):
            raise UserError(f"field 'history[{place}]' is no pair of texts", where, "write [[asked, answered], …]")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def text_of(row: Mapping[str, Any], field: str, where: str) -> str:
    """The text in a field.

    Raises:
        UserError: the field is not there, holds no text, or an empty one.
    """
    if field not in row:
        raise UserError(
            f"has no field '{field}'{near(field, row)}",
            where,
            f"it has: {names(row)}; add it or map a column: read.columns.{field}=COLUMN",
        )
    value = row[field]
    if not isinstance(value, str):
        raise UserError(f"field '{field}' is {_kind(value)}, not a text", where, "write it as a text in quotes")
    if not value.strip():
        raise UserError(f"field '{field}' is empty", where, "fill it or remove the row")
    return value


def _messages(value: Any, where: str, field: str, *, answered: bool) -> list[dict[str, Any]]:
    if isinstance(value, str):
        value = parsed(value, field, where)
    if not isinstance(value, list) or not value:
        form = '[{"from": …, "value": …}]' if field == "conversations" else '[{"role": …, "content": …}]'
        raise UserError(f"field '{field}' is {_kind(value)}, not a list of turns", where, f"write {form}")
    for place, turn in enumerate(value):
        _check_turn(turn, f"field '{field}[{place}]", where)
    _check_order(value, where, field, answered=answered)
    return [{**turn, "weight": 0} if turn.get("weight") is None and turn.get("loss") is False else dict(turn) for turn in value]


def _check_turn(turn: Any, field: str, where: str) -> None:
    if not isinstance(turn, dict) or "role" not in turn:
        raise UserError(f"{field}' has no role", where, f"give it one of: {', '.join(ROLES)}")
    role = str(turn["role"])
    if role not in ROLES:
        raise UserError(f"{field}.role' is '{role[:SHOWN]}'{near(role, ROLES)}", where, f"one of: {', '.join(ROLES)}")
    calls = turn.get("tool_calls")
    if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise UserError(f"{field}.tool_calls' is {_kind(calls)}, not a list of calls", where, 'write [{"function": {…}}, …]')
    content = turn.get("content")
    if turn["role"] == "assistant" and turn.get("tool_calls") and content is None:
        return
    if not isinstance(content, str):
        raise UserError(f"{field}.content' is {_kind(content)}, not a text", where, "write it as a text in quotes")
    if turn["role"] == "assistant" and not content.strip() and not turn.get("tool_calls"):
        raise UserError(f"{field}.content' is empty", where, "fill it or remove the row")


def _check_order(turns: list[dict[str, Any]], where: str, field: str, *, answered: bool) -> None:
    if answered and turns[-1]["role"] != "assistant":
        raise UserError(f"the last turn is by '{turns[-1]['role']}', not the assistant", where, "end the row with an answer")
    before = ""
    for place, turn in enumerate(turns):
        role = turn["role"]
        if (role == "system" and place) or (role == before and role in ("user", "assistant", "system")):
            raise UserError(
                f"turn {place + 1} (field '{field}[{place}]') by '{role}' follows one by '{before}'",
                where,
                "let user and assistant take turns",
            )
        if role in ("assistant", "tool") and not before:
            raise UserError(f"field '{field}[{place}]' by '{role}' answers nothing", where, "begin with a turn by the user")
        before = role


def turns_of(value: Any, field: str, where: str, *, answered: bool = True) -> list[dict[str, Any]]:
    """A list of turns, each in OpenAI's form (role, content) or sharegpt's (from, value), checked.

    Args:
        value: the field's content.
        field: its name, for messages.
        where: the row, for messages.
        answered: the last turn is to be an answer.
    """
    if isinstance(value, list) and value and all(isinstance(turn, dict) and "from" in turn for turn in value):
        value = [_from_sharegpt(turn, f"{field}[{place}]", where) for place, turn in enumerate(value)]
    return _messages(value, where, field, answered=answered)


def _from_sharegpt(turn: Mapping[str, Any], field: str, where: str) -> dict[str, Any]:
    """A turn {from, value} and what stands beside; the value of a `function_call` is JSON: the call's name and arguments."""
    if "value" not in turn:
        raise UserError(f"field '{field}' lacks 'from' or 'value'", where, "give it both")
    role = _SHAREGPT.get(str(turn["from"]))
    if role is None:
        raise UserError(f"field '{field}.from' is '{str(turn['from'])[:40]}'", where, f"one of: {', '.join(_SHAREGPT)}")
    if turn["from"] == "function_call":
        calls = parsed(turn["value"], field, where) if isinstance(turn["value"], str) else turn["value"]
        listed = calls if isinstance(calls, list) else [calls]
        if not all(isinstance(call, dict) and "name" in call for call in listed):
            raise UserError(f"field '{field}.value' is no function call", where, 'write {"name": …, "arguments": {…}}')
        made: dict[str, Any] = {
            "role": role, "content": "", "tool_calls": [{"type": "function", "function": dict(call)} for call in listed]
        }  # fmt: skip
    else:
        made = {"role": role, "content": turn["value"]}
    made |= {key: value for key, value in turn.items() if key not in _SHAREGPT_TURN and value is not None}
    weight = turn.get("loss") if turn.get("weight") is None else turn["weight"]
    if weight not in (1, None):
        made["weight"] = weight or 0
    return made


def tools_of(row: Row, where: str) -> list[Any] | None:
    """The tools that may be called: a list, or a JSON text with one; None where there are none.

    Raises:
        UserError: they are something else.
    """
    value = row.get("tools")
    if isinstance(value, str) and value:
        value = parsed(value, "tools", where)
    if value in (None, "", []):
        return None
    if not isinstance(value, list):
        raise UserError(f"field 'tools' is {_kind(value)}, not a list", where, "write a list of tool schemas")
    return value


def parsed(value: str, field: str, where: str) -> Any:
    """What a JSON text in a field says.

    Raises:
        UserError: it is none.
    """
    try:
        return json.loads(value)
    except ValueError as error:
        raise UserError(f"field '{field}' is a text that is not JSON", where, "write it as a list") from error


def _kind(value: Any) -> str:
    return {"NoneType": "null", "int": "a number", "float": "a number", "bool": "true/false", "list": "a list",
            "dict": "an object", "str": "a text"}.get(type(value).__name__, type(value).__name__)  # fmt: skip
