"""What rows are for: their kind, told from the fields, and foreign shapes turned into this project's own fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from mlops_llm.data.chat import Conversation, conversation, headed, history, read_from, text_of, tools_of, turns_of
from mlops_llm.data.rows import SHOWN, Row, names
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
_CHOICE = re.compile("choice[0-9]{1,3}")
_GSM8K = re.compile(r"####\s*(.+?)\s*$")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
        UserError: a field is missing or of the wrong type, or two say different things; it is named with what to do.
    """
    return {
        Kind.sft: _sft, Kind.dpo: _dpo, Kind.kto: _kto, Kind.ppo: _ppo, Kind.grpo: _grpo, Kind.eval: _eval
    }[kind](row, where)  # fmt: skip


def _sft(row: Row, where: str) -> Row:
    chat = conversation(row, where)
    read = read_from(row)
    if read[1] == "response" or (read[0] == "messages" and row["messages"] == chat.messages[-len(row["messages"]) :]):
        return _tooled(row, where)
    return _made(_asked(chat), row, {*read}, where)


def _dpo(row: Row, where: str) -> Row:
    """Preference pairs: texts; alpaca and sharegpt forms; or whole conversations that differ in the last turn."""
    chosen, rejected = (_answer(row, field, where) for field in ("chosen", "rejected"))
    if isinstance(row.get("prompt"), str) and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        text_of(row, "prompt", where)
        return _tooled(row, where)
    told = _told(row, where)
    asked = _as_prompt(headed(told, row, where), row, where) if told else _prompt(row, where)
    if _answered(asked):
        raise UserError("has an answer before 'chosen'", where, "end what is asked with a turn by the user")
    read = {"chosen", "rejected"} | _asked_by(row)
    if row.get("messages") in (row["chosen"], row["rejected"]):
        read.add("messages")
    return _made({**asked, "chosen": chosen, "rejected": rejected}, row, read, where)


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
    asked = _prompt({key: value for key, value in row.items() if key != "system"}, where)
    first = asked.get("messages") or [{"role": "user", "content": asked["prompt"]}]
    system = first[:1] if first[0]["role"] == "system" and turns[0]["role"] != "system" else []
    skipped = int(turns[0]["role"] == "system" and first[0]["role"] != "system")
    if list(map(_said, first)) != list(map(_said, [*system, *turns[skipped:]][: len(first)])):
        raise UserError(f"'{side}' does not begin with '{field}'", where, f"let it, or take '{field}' out")
    return [*system, *turns[:-1]]


def _said(turn: Mapping[str, Any]) -> tuple[str, str]:
    return turn["role"], str(turn.get("content") or "").strip()


def _kto(row: Row, where: str) -> Row:
    """One answer and whether it is wanted."""
    field = "label" if "label" in row else "kto_tag"
    label = row.get(field)
    if isinstance(label, str) and label.lower() in ("true", "false"):
        label = label.lower() == "true"
    if not isinstance(label, bool):
        raise UserError(f"field '{field}' is {label!r:.40}, not true or false", where, "write true for a wanted answer")
    chat = conversation(row, where)
    if read_from(row)[:2] == ("prompt", "response") and row.get("label") is label:
        return _tooled(row, where)
    return _made({**_asked(chat), "label": label}, row, {field, *read_from(row)}, where)


def _ppo(row: Row, where: str) -> Row:
    """What is asked; an answer that the row has to it is left out."""
    answers = {"response", "completion"} & row.keys()
    if isinstance(row.get("prompt"), str) and not answers:
        text_of(row, "prompt", where)
        return _tooled(row, where)
    return _made(_unanswered(row, where), row, _asked_by(row) | answers | {read_from(row)[1]}, where)


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
        return _tooled(row, where)
    consumed = {"solution", *(() if row.get("solution") is not None else ("answer",))} | _asked_by(row)
    return _made({**_unanswered(row, where), "solution": solution}, row, consumed, where)


def _eval(row: Row, where: str) -> Row:
    """Prompts with what is known of a good answer: references, a label, or the letter of a choice."""
    if isinstance(row.get("prompt"), str) and not {"canonical_solution", "choice0", "choices"} & set(row):
        text_of(row, "prompt", where)
        return _tooled(row, where)
    if ("choices" in row or "choice0" in row) and ("answer" in row or "answerKey" in row):
        return _chosen(row, where)
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
    asked = _prompt(row, where)
    if _answered(asked):
        last = asked["messages"][-1]
        if found or last.get("tool_calls"):
            told = f"has an answer beside '{field}'" if found else "ends with a call of a tool"
            raise UserError(told, where, "end the turns with what is asked, and give 'reference'")
        found = {"reference": text_of(last, "content", where)}
        asked = _as_prompt(asked["messages"][:-1], row, where)
    return _made({**asked, **found}, row, {field} | _asked_by(row), where)


def _chosen(row: Row, where: str) -> Row:
    """A question with choices, and the letter of the right one, from its letter, its place from 0 or its label."""
    numbered = sorted((name for name in row if _CHOICE.fullmatch(name)), key=lambda name: int(name[6:]))
    there = [name for name in numbered if row[name] is not None]
    choices: Any = row.get("choices") or [row[name] for name in there]
    labels = [] if row.get("choices") else [name[6:] for name in there]
    if isinstance(choices, str):
        choices = _parsed(choices)
    if isinstance(choices, Mapping) and isinstance(choices.get("label"), list):
        labels, choices = [str(each) for each in choices["label"]], choices.get("text")
    if not isinstance(choices, list) or not choices or (labels and len(labels) != len(choices)):
        raise UserError(
            "field 'choices' is no list of choices", where, 'write [TEXT, …] or {"text": [TEXT, …], "label": ["A", …]}'
        )
    if len(choices) > len(_LETTERS):
        raise UserError(f"has {len(choices)} choices", where, f"at most {len(_LETTERS)} have a letter")
    asked = "question" if "question" in row else "prompt"
    answered = "answer" if "answer" in row else "answerKey"
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False))
    answer = str(row[answered]).strip()
    if answer in labels:
        answer = _LETTERS[labels.index(answer)]
    elif not labels and answer.isascii() and answer.isdigit() and len(answer) < 3 and int(answer) < len(choices):
        answer = _LETTERS[int(answer)]
    if len(answer) != 1 or answer not in _LETTERS[: len(choices)]:
        raise UserError(
            f"field '{answered}' is '{answer[:SHOWN]}', none of the {len(choices)} choices", where, "give its letter"
        )
    made = {"prompt": f"{text_of(row, asked, where)}\n{listed}", "label": answer}
    return _tooled(_made(made, row, {asked, answered, "choices", *numbered}, where), where)


def _asked(chat: Conversation) -> Row:
    """A conversation in our fields: a plain pair where it is one and nothing else is said of its turns, else its messages."""
    turns = chat.messages
    head = turns[1:] if turns[0]["role"] == "system" else turns
    if (
        [turn["role"] for turn in head] == ["user", "assistant"]
        and not chat.tools
        and all(map(_is_plain, turns))
        and turns[0]["content"]
    ):
        system = {"system": turns[0]["content"]} if head is not turns else {}
        return {"prompt": head[0]["content"], "response": head[1]["content"], **system}
    return {"messages": turns, **({"tools": chat.tools} if chat.tools else {})}


def _prompt(row: Row, where: str) -> Row:
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
    return _as_prompt(headed(turns, row, where), row, where)


def _as_prompt(turns: list[dict[str, Any]], row: Row, where: str) -> Row:
    """Turns as what is asked: a text where one turn by the user says it all, else messages with their tools."""
    tools = tools_of(row, where)
    if len(turns) == 1 and turns[0]["role"] == "user" and _is_plain(turns[0]) and not tools:
        return {"prompt": turns[0]["content"]}
    return {"messages": turns, **({"tools": tools} if tools else {})}


def _unanswered(row: Row, where: str) -> Row:
    """What is asked, without the answer that the turns may end with."""
    asked = _prompt(row, where)
    return _as_prompt(asked["messages"][:-1], row, where) if _answered(asked) else asked


def _answered(asked: Row) -> bool:
    """Whether the turns end with an answer."""
    return bool(asked.get("messages")) and asked["messages"][-1]["role"] == "assistant"


def _is_plain(turn: Mapping[str, Any]) -> bool:
    """Whether a turn says who and what, and nothing else (no `weight`, no call of a tool)."""
    return all(value is None for key, value in turn.items() if key not in ("role", "content"))


def _tooled(row: Row, where: str) -> Row:
    """The row with its tools as a list, if they were a JSON text; else the row itself."""
    tools = tools_of(row, where) if "tools" in row else None
    return {**row, "tools": tools} if tools and tools is not row["tools"] else row


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


def _asked_by(row: Row) -> set[str]:
    """The fields that say what is asked (and in a conversation what is answered), as `_prompt` reads them."""
    beside = {"system", "tools"}
    for field in ("prompt", "messages", "conversations"):
        if field in row:
            return {field} | beside
    return ({"instruction", "input", "history"} if "instruction" in row else {"question"}) | beside


def _made(made: Row, row: Row, read: set[str], where: str) -> Row:
    """Our fields with the row's other fields, which say something else.

    Raises:
        UserError: one of the others has the name of one of ours, and says something else than the fields that were read.
    """
    rest = {key: value for key, value in row.items() if key not in read}
    twice = next((key for key in made if key in rest and rest[key] != made[key]), None)
    if twice:
        told = names(key for key in row if key in read)
        remedy = "keep one of them, or map the columns: 'read.columns={prompt:COLUMN,response:COLUMN}'"
        raise UserError(f"field '{twice}' and {told} say different things", where, remedy)
    return {**made, **rest}
