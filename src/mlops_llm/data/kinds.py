"""What rows are for: their kind, told from the fields, and foreign shapes turned into this project's own fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from mlops_llm.data import choices
from mlops_llm.data.asked import answered, as_prompt, is_plain, made, prompt, read_by, tooled, unanswered
from mlops_llm.data.chat import Conversation, conversation, read_from, text_of
from mlops_llm.data.pairs import pair
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
REFERENCES = ("reference", "references", "answer", "solution")
"""Fields of an evaluation's row that tell good answers, one or a list; the first that a row has counts."""
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {Kind.eval: ("reference", "label", "metadata")}
_GSM8K = re.compile(r"####\s*(.+?)\s*$")


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


def kind_of(row: Row, kinds: Sequence[Kind]) -> Kind:
    """The one of several kinds that a row tells by its fields, else the first."""
    told = infer(row)
    return told if told and told in kinds else kinds[0]


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
        Kind.sft: _sft, Kind.dpo: pair, Kind.kto: _kto, Kind.ppo: _ppo, Kind.grpo: _grpo, Kind.eval: _eval
    }[kind](row, where)  # fmt: skip


def _sft(row: Row, where: str) -> Row:
    chat = conversation(row, where)
    read = read_from(row)
    if read[1] == "response" or (read[0] == "messages" and row["messages"] == chat.messages[-len(row["messages"]) :]):
        return tooled(row, where)
    return made(_asked(chat), row, {*read}, where)


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
        return tooled(row, where)
    return made({**_asked(chat), "label": label}, row, {field, *read_from(row)}, where)


def _ppo(row: Row, where: str) -> Row:
    """What is asked; an answer that the row has to it is left out."""
    answers = {"response", "completion"} & row.keys()
    if isinstance(row.get("prompt"), str) and not answers:
        text_of(row, "prompt", where)
        return tooled(row, where)
    return made(unanswered(row, where), row, read_by(row) | answers | {read_from(row)[1]}, where)


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
        return tooled(row, where)
    consumed = {"solution", *(() if row.get("solution") is not None else ("answer",))} | read_by(row)
    return made({**unanswered(row, where), "solution": solution}, row, consumed, where)


def _eval(row: Row, where: str) -> Row:
    """Prompts with what is known of a good answer: references, a label, or the letter of a choice."""
    if isinstance(row.get("prompt"), str) and not {"canonical_solution", "choice0", "choices"} & set(row):
        text_of(row, "prompt", where)
        return tooled(row, where)
    if ("choices" in row or "choice0" in row) and ("answer" in row or "answerKey" in row):
        return choices.question(row, where)
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
    asked = prompt(row, where)
    if answered(asked):
        last = asked["messages"][-1]
        if found or last.get("tool_calls"):
            told = f"has an answer beside '{field}'" if found else "ends with a call of a tool"
            raise UserError(told, where, "end the turns with what is asked, and give 'reference'")
        found = {"reference": text_of(last, "content", where)}
        asked = as_prompt(asked["messages"][:-1], row, where)
    return made({**asked, **found}, row, {field} | read_by(row), where)


def _asked(chat: Conversation) -> Row:
    """A conversation in our fields: a plain pair where it is one and nothing else is said of its turns, else its messages."""
    turns = chat.messages
    head = turns[1:] if turns[0]["role"] == "system" else turns
    simple = [turn["role"] for turn in head] == ["user", "assistant"] and all(map(is_plain, turns)) and turns[0]["content"]
    if simple and not chat.tools:
        system = {"system": turns[0]["content"]} if head is not turns else {}
        return {"prompt": head[0]["content"], "response": head[1]["content"], **system}
    return {"messages": turns, **({"tools": chat.tools} if chat.tools else {})}
