"""What rows are for: their kind, told from the fields, and foreign shapes turned into this project's own fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from mlops_llm.data.chat import Conversation, conversation, history, text_of, turns_of
from mlops_llm.data.rows import Row, names
from mlops_llm.errors import UserError


class Kind(Enum):
    """What rows are for; the fields of each are those of the class's `FIELDS`."""

    sft = "sft"
    dpo = "dpo"
    kto = "kto"
    ppo = "ppo"
    grpo = "grpo"
    eval = "eval"


FIELDS: Mapping[Kind, tuple[str, ...]] = {
    Kind.sft: ("prompt", "response"),
    Kind.dpo: ("prompt", "chosen", "rejected"),
    Kind.kto: ("prompt", "response", "label"),
    Kind.ppo: ("prompt",),
    Kind.grpo: ("prompt", "solution"),
    Kind.eval: ("prompt",),
}
"""Required fields of each kind; `messages` (with `tools`) may stand for prompt, and in sft for response too."""
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {Kind.eval: ("reference", "label", "metadata")}
_GSM8K = re.compile(r"####\s*(.+?)\s*$")
_LETTERS = "ABCDEFGHIJ"


def infer(row: Row) -> Kind | None:
    """Tell a row's kind from its fields; None where no kind has them."""
    keys = set(row)
    if {"chosen", "rejected"} <= keys:
        return Kind.dpo
    if isinstance(row.get("label"), bool) or "kto_tag" in keys:
        return Kind.kto
    if str(row.get("label")).lower() in ("true", "false") and keys & {"response", "completion"}:
        return Kind.kto
    if "solution" in keys:
        return Kind.grpo
    if keys & {"response", "completion", "output"}:
        return Kind.sft
    if keys & {"reference", "references", "metadata", "label", "choices", "choice0", "canonical_solution", "Best Answer"}:
        return Kind.eval
    for name in ("messages", "conversations"):
        turns = row.get(name)
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            turns = _parsed(turns)
        if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping):
            last = str(turns[-1].get("role", turns[-1].get("from")))
            return Kind.sft if last in ("assistant", "gpt", "function_call") else Kind.ppo
    if "question" in keys and "answer" in keys:
        return Kind.sft
    return Kind.ppo if keys & {"prompt", "instruction", "question"} else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def of_rows(rows: Iterable[Row], where: str, wanted: Kind | None = None) -> Kind:
    """The kind of all rows, by the first that tells; `wanted` overrules it.

    Raises:
        UserError: no row tells.
    """
    if wanted:
        return wanted
    first: Row = {}
    for row in rows:
        first = first or row
        kind = infer(row)
        if kind:
            return kind
    known = "; ".join(f"{kind.name}: {', '.join(FIELDS[kind])}" for kind in Kind)
    raise UserError(
        f"what the rows are for cannot be told from their fields ({names(first)})",
        where,
        f"name the columns, e.g. 'read.columns={{prompt:COLUMN,response:COLUMN}}' (fields are: {known})",
    )


def own(row: Row, kind: Kind, where: str) -> Row:
    """Turn a row of any known shape into this project's own fields of `kind`; other fields stay as they are.

    A row that has its kind's own fields already is returned as it is, so that its digest does not change.

    Raises:
        UserError: a field is missing or of the wrong type; it is named with what to do.
    """
    return {
        Kind.sft: _sft, Kind.dpo: _dpo, Kind.kto: _kto, Kind.ppo: _ppo, Kind.grpo: _grpo, Kind.eval: _eval
    }[kind](row, where)  # fmt: skip


def _sft(row: Row, where: str) -> Row:
    chat = conversation(row, where)
    if "messages" in row or ("prompt" in row and "response" in row):
        return row
    return {**_asked(chat, row), **_left(row, _asked_by(row) | _answered_by(row))}


def _dpo(row: Row, where: str) -> Row:
    """Preference pairs: texts; alpaca and sharegpt forms; or whole conversations that differ in the last turn."""
    chosen, rejected = (_answer(row, field, where) for field in ("chosen", "rejected"))
    if isinstance(row.get("prompt"), str) and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        text_of(row, "prompt", where)
        return row
    sides = [row[side][:-1] for side in ("chosen", "rejected") if isinstance(row[side], list)]
    if "prompt" not in row and len(sides) == 2 and sides[0] != sides[1]:
        raise UserError("asks otherwise in 'chosen' than in 'rejected'", where, "let both begin with the same turns")
    asked = _prompt(row, where, row["chosen"])
    return {**asked, "chosen": chosen, "rejected": rejected, **_left(row, {"chosen", "rejected"} | _asked_by(row))}


def _kto(row: Row, where: str) -> Row:
    """One answer and whether it is wanted."""
    field = "label" if "label" in row else "kto_tag"
    label = row.get(field)
    if isinstance(label, str) and label.lower() in ("true", "false"):
        label = label.lower() == "true"
    if not isinstance(label, bool):
        raise UserError(f"field '{field}' is {label!r:.40}, not true or false", where, "write true for a wanted answer")
    if "prompt" in row and "response" in row and row.get("label") is label:
        conversation(row, where)
        return row
    chat = conversation(row, where)
    return {**_asked(chat, row), "label": label, **_left(row, {field} | _asked_by(row) | _answered_by(row))}


def _ppo(row: Row, where: str) -> Row:
    if isinstance(row.get("prompt"), str) and not {"response", "completion"} & set(row):
        text_of(row, "prompt", where)
        return row
    return {**_prompt(row, where), **_left(row, _asked_by(row) | {"response", "completion", "output", "answer"})}


def _grpo(row: Row, where: str) -> Row:
    """Prompts with a checkable solution; of gsm8k's answers the part after `####`."""
    solution = row.get("solution")
    if solution is None and isinstance(row.get("answer"), str):
        found = _GSM8K.search(row["answer"])
        solution = found[1] if found else row["answer"]
    if isinstance(solution, int | float) and not isinstance(solution, bool):
        solution = str(solution)
    if not isinstance(solution, str) or not solution.strip():
        raise UserError("has no 'solution'", where, "add the field, as a text that the grader can compare")
    if isinstance(row.get("prompt"), str) and row.get("solution") == solution:
        text_of(row, "prompt", where)
        return row
    consumed = {"solution" if "solution" in row else "answer"} | _asked_by(row)
    return {**_prompt(row, where), "solution": solution, **_left(row, consumed)}


def _eval(row: Row, where: str) -> Row:
    """Prompts with what is known of a good answer: references, a label, or the letter of a choice."""
    if isinstance(row.get("prompt"), str) and not {"canonical_solution", "choice0", "choices"} & set(row):
        text_of(row, "prompt", where)
        return row
    choices = row.get("choices") or [row[f"choice{place}"] for place in range(10) if f"choice{place}" in row]
    if choices and "answer" in row:
        asked = text_of(row, "question", where)
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False))
        answer = str(row["answer"]).strip()
        if answer.isdigit() and int(answer) < len(choices):
            answer = _LETTERS[int(answer)]
        if answer not in _LETTERS[: len(choices)]:
            raise UserError(f"field 'answer' is '{answer[:40]}', none of the {len(choices)} choices", where, "give its letter")
        consumed = {"question", "answer", "choices", *(f"choice{place}" for place in range(10))}
        return {"prompt": f"{asked}\n{listed}", "label": answer, **_left(row, consumed)}
    if "Question" in row and "Best Answer" in row:
        more = [each.strip() for each in str(row.get("Correct Answers") or "").split(";") if each.strip()]
        best = text_of(row, "Best Answer", where)
        references = [best, *(each for each in more if each != best)]
        rest = {key: value for key, value in row.items() if key not in ("Question", "Best Answer", "Correct Answers")}
        return {"prompt": text_of(row, "Question", where), "reference": references, "metadata": rest}
    if "canonical_solution" in row:
        rest = {key: value for key, value in row.items() if key not in ("prompt", "canonical_solution")}
        return {"prompt": text_of(row, "prompt", where), "reference": row["canonical_solution"], "metadata": rest}
    field = next((field for field in ("reference", "answer", "output", "response") if row.get(field) is not None), "reference")
    found = {"reference": row[field]} if row.get(field) is not None else {}
    return {**_prompt(row, where), **found, **_left(row, {field} | _asked_by(row))}


def _asked(chat: Conversation, row: Row) -> Row:
    """A conversation in our fields: a plain pair where it is one, else its messages."""
    turns = chat.messages
    head = turns[1:] if turns[0]["role"] == "system" else turns
    simple = [turn["role"] for turn in head] == ["user", "assistant"] and not any(turn.get("tool_calls") for turn in head)
    if simple and not chat.tools:
        system = {"system": turns[0]["content"]} if head is not turns else {}
        return {"prompt": head[0]["content"], "response": head[1]["content"], **system}
    return {"messages": turns, **({"tools": chat.tools} if chat.tools else {})}


def _prompt(row: Row, where: str, answered: Any = None) -> Row:
    """What is asked, without an answer: a text with its system text, or the turns before the answer."""
    if isinstance(answered, list) and len(answered) > 1 and "prompt" not in row:
        turns = turns_of(answered[:-1], "chosen", where, answered=False)
    elif isinstance(row.get("prompt"), list):
        turns = turns_of(row["prompt"], "prompt", where, answered=False)
    elif "messages" in row or "conversations" in row:
        field = "messages" if "messages" in row else "conversations"
        turns = turns_of(row[field], field, where, answered=False)
        if turns and turns[-1]["role"] == "assistant":
            turns = turns[:-1]
    elif "instruction" in row:
        asked = text_of(row, "instruction", where) + (f"\n{row['input']}" if row.get("input") else "")
        before = history(row, where)
        if not before:
            return _with_system({"prompt": asked}, row)
        turns = [*before, {"role": "user", "content": asked}]
    else:
        field = "question" if "question" in row and "prompt" not in row else "prompt"
        return _with_system({"prompt": text_of(row, field, where)}, row)
    if row.get("system") and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": text_of(row, "system", where)}, *turns]
    if len(turns) == 1:
        return {"prompt": turns[0]["content"]}
    return {"messages": turns, **({"tools": row["tools"]} if row.get("tools") else {})}


def _with_system(asked: Row, row: Row) -> Row:
    return {**asked, **({"system": row["system"]} if row.get("system") else {})}


def _answer(row: Row, field: str, where: str) -> str:
    """An answer as a text: itself, a turn, or the last of several turns."""
    value = row.get(field)
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        value = value.get("content", value.get("value"))
    return text_of({field: value} if value is not None else row, field, where)


def _asked_by(row: Row) -> set[str]:
    """The fields that say what is asked (and in a conversation what is answered), as `conversation` and `_prompt` read them."""
    if "prompt" in row:
        return {"prompt", "system", "tools"}
    for field in ("messages", "conversations"):
        if field in row:
            return {field, "system", "tools"}
    return {"instruction", "input", "history", "system"} if "instruction" in row else {"question", "system"}


def _answered_by(row: Row) -> set[str]:
    """The field that says what is answered, as `conversation` reads it."""
    if "prompt" in row:
        return {next((field for field in ("response", "completion") if field in row), "response")}
    return {"output"} if "instruction" in row else {"answer"}


def _left(row: Row, consumed: set[str]) -> Row:
    """Fields that say something else."""
    return {key: value for key, value in row.items() if key not in consumed}
