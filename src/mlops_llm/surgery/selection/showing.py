"""A training's checkpoints as a table: what was asked for on a terminal, all of it in the record."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from mlops_llm import console
from mlops_llm.eval.recording import BESIDE
from mlops_llm.record import Grid
from mlops_llm.surgery.selection.freeing import Freeing
from mlops_llm.surgery.selection.rows import Rows
from mlops_llm.surgery.selection.rules import HELD_OUT, LOSS, Candidate, Choice

ACCURACIES = ("eval/mean_token_accuracy", "eval/rewards/accuracies")
"""What trainings call the accuracy on held-out rows."""
TABLE = "selection.json"
_EDGES = 3
"""Characters between the texts of two columns."""
_CHOICE = len("not judged")
"""Characters that a reason is folded to, where numbers need the room."""


def table(found: Rows, choice: Choice, plan: Freeing, by: Sequence[str], width: int) -> Grid:
    """The checkpoints with as many numbers as fit: those that count first, then losses, accuracy and other scores.

    Args:
        found: the checkpoints.
        choice: what was made of them.
        plan: what deleting them frees.
        by: the numbers that count; the first one is always there.
        width: characters of a line.
    """
    numbers = {name: [_number(each, name) for each in found.candidates] for name in numbers_of(found, by)}
    fates = {each.row.name: "stays" if each.kept else console.size(each.bytes) for each in plan.fates}
    said = [_said(each, choice) for each in found.candidates]
    names, steps = [each.name for each in found.candidates], [str(each.step) for each in found.candidates]
    free = [fates.get(each.name, "") for each in found.candidates]
    room = width - 1 - sum(_wide(head, column) for head, column in (("checkpoint", names), ("step", steps), ("to free", free)))
    shown = list[str]()
    for name, column in numbers.items():
        reasons = _CHOICE + _EDGES if name in by else _wide("choice", said)
        if room - _wide(name, column) < reasons and shown:
            break
        room -= _wide(name, column)
        shown.append(name)
    folded = ["\n".join(wrap(each, max(_CHOICE, room - _EDGES), break_long_words=False)) for each in said]
    rows = list(zip(names, steps, *(numbers[name] for name in shown), folded, free, strict=True))
    more = f" (more numbers: {TABLE})" if len(shown) < len(numbers) else ""
    return Grid(f"checkpoints of {found.run.name}{more}", ["checkpoint", "step", *shown, "choice", "to free"], rows)


def columns(found: Rows, choice: Choice, plan: Freeing, by: Sequence[str]) -> dict[str, list[Any]]:
    """All that is known of them, for the record."""
    fates = {each.row.name: each for each in plan.fates}
    kept = {name: f"stays: {each.kept}" if each.kept else console.size(each.bytes) for name, each in fates.items()}
    made: dict[str, list[Any]] = {
        "checkpoint": [each.name for each in found.candidates],
        "step": [each.step for each in found.candidates],
    }
    made |= {name: [each.values.get(name) for each in found.candidates] for name in numbers_of(found, by)}
    made["mark"] = [each.overfit for each in found.candidates]
    made["choice"] = ["chosen" if each is choice.chosen else choice.left_out.get(each.name, "") for each in found.candidates]
    made["to free"] = [kept.get(each.name, "") for each in found.candidates]
    return made


def numbers_of(found: Rows, by: Sequence[str]) -> list[str]:
    """Names of the numbers that any checkpoint has: those that count, losses, accuracy, other scores."""
    known = {name for each in found.candidates for name in each.values}
    scores = sorted(name for name in known if name.startswith("score/") and not name.endswith(BESIDE))
    return [name for name in dict.fromkeys((*by, LOSS, HELD_OUT, *ACCURACIES, *scores)) if name in known]


def _number(one: Candidate, name: str) -> str:
    return console.number(one.values[name]) if name in one.values else "-"


def _said(one: Candidate, choice: Choice) -> str:
    if one.name in choice.unjudged:
        return "not judged"
    said = "chosen" if one is choice.chosen else choice.left_out.get(one.name, "")
    return ", ".join(each for each in (said, "overfit" if one.overfit and said != "is overfit" else "") if each)


def _wide(head: str, column: Sequence[str]) -> int:
    return max(len(each) for each in (head, *column)) + _EDGES
