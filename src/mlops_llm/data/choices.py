"""Questions with choices (MMLU, ARC and the like)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from mlops_llm.data.asked import made, tooled
from mlops_llm.data.chat import parsed, text_of
from mlops_llm.data.rows import SHOWN, Row
from mlops_llm.errors import UserError

_CHOICE = re.compile("choice[0-9]{1,3}")


def question(row: Row, where: str) -> Row:
    """A question with choices, and the letter of the right one, from its letter, its place from 0 or its label."""
    numbered = sorted((name for name in row if _CHOICE.fullmatch(name)), key=lambda name: int(name[6:]))
    there = [name for name in numbered if row[name] is not None]
    choices: Any = row.get("choices") or [row[name] for name in there]
    labels = [] if row.get("choices") else [name[6:] for name in there]
    if isinstance(choices, str):
        choices = parsed(choices, "choices", where)
    if isinstance(choices, Mapping) and isinstance(choices.get("label"), list):
        labels, choices = [str(each) for each in choices["label"]], choices.get("text")
    if not isinstance(choices, list) or not choices or (labels and len(labels) != len(choices)):
        raise UserError(
            "field 'choices' is no list of choices", where, 'write [TEXT, …] or {"text": [TEXT, …], "label": ["A", …]}'
        )
    if len(choices) > len(ascii_uppercase):
        raise UserError(f"has {len(choices)} choices", where, f"at most {len(ascii_uppercase)} have a letter")
    asked = "question" if "question" in row else "prompt"
    answered = "answer" if "answer" in row else "answerKey"
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    answer = str(row[answered]).strip()
    if answer in labels:
        answer = ascii_uppercase[labels.index(answer)]
    elif not labels and answer.isascii() and answer.isdigit() and len(answer) < 3 and int(answer) < len(choices):
        answer = ascii_uppercase[int(answer)]
    if len(answer) != 1 or answer not in ascii_uppercase[: len(choices)]:
        raise UserError(
            f"field '{answered}' is '{answer[:SHOWN]}', none of the {len(choices)} choices", where, "give its letter"
        )
    ours = {"prompt": f"{text_of(row, asked, where)}\n{listed}", "label": answer}
    return tooled(made(ours, row, {asked, answered, "choices", *numbered}, where), where)
