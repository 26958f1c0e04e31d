"""What is put to people, and the key that tells which model gave an answer: the key never leaves the record."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import cycle
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.record import Checkpoint, DatasetInput

KEY = "human/key.json"
"""The artifact that maps rows to models."""
EVALUATION = "human.evaluation"
"""Tag of an export's run: the id that its workbooks have."""
_VERSION = 2
_ID = re.compile(r"(h[0-9a-f]{12})-(\d+)-\d+")
_ASKED = (1, 2, 4, 5)
"""What checks ask for: not the middle, which is what those give who do not read."""


class Kind(Enum):
    """What a line of a rater's sheet is for."""

    answer = "answer"
    repeat = "repeat"
    """An answer that the rater has met before."""
    check = "check"
    """It says which score is to be given."""


@dataclass(frozen=True)
class Model:
    """Who answered."""

    ref: str
    checkpoint: Checkpoint | None
    """None of a server elsewhere."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to one row."""

    place: int
    """Number of the row in its dataset, from 0."""
    model: int
    """Place among the models."""
    mark: str
    """What its text is known by (`cells.mark`)."""
    length: int
    """Characters."""


@dataclass(frozen=True)
class Line:
    """One row of one rater's sheet."""

    id: str
    rater: int
    kind: Kind
    answer: int
    """Place among the answers; of a check that whose prompt is shown."""
    wanted: int = 0
    """What a check asks for."""
    shown: int = 1
    """Place among the answers to its prompt, from 1."""
    prompt_mark: str = ""
    answer_mark: str = ""


@dataclass(frozen=True)
class Ballot:
    """An evaluation by people."""

    evaluation: str
    dimensions: tuple[str, ...]
    dataset: DatasetInput
    models: tuple[Model, ...]
    answers: tuple[Answer, ...]
    none: tuple[tuple[int, int], ...] = ()
    """Row and model of what is no answer; people are not asked about it."""
    lines: Mapping[str, Line] = field(default_factory=dict)
    """By id."""

    def as_json(self) -> str:
        """The key, from which `read` makes the same."""
        facts = dataclasses.asdict(dataclasses.replace(self, lines={}))
        lines = [[each.id, each.rater, each.kind.name, *_rest(each)] for each in self.lines.values()]
        return json.dumps({"version": _VERSION, **facts, "lines": lines}, ensure_ascii=False, default=str)


def _rest(line: Line) -> list[Any]:
    return [line.answer, line.wanted, line.shown, line.prompt_mark, line.answer_mark]


def read(text: str, where: str) -> Ballot:
    """Make a ballot of its key.

    Raises:
        UserError: the text is none, or of another release.
    """
    try:
        found = json.loads(text)
        if found.pop("version") != _VERSION:
            raise UserError("was written by another release", where, "export anew")
        lines = [Line(each[0], each[1], Kind[each[2]], *each[3:]) for each in found.pop("lines")]
        return Ballot(
            found["evaluation"],
            tuple(found["dimensions"]),
            DatasetInput(**found["dataset"]),
            tuple(Model(each["ref"], _checkpoint(each["checkpoint"])) for each in found["models"]),
            tuple(Answer(**each) for each in found["answers"]),
            tuple((place, model) for place, model in found["none"]),
            {each.id: each for each in lines},
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError("is no key of an evaluation by people", where, "export anew") from error


def _checkpoint(found: dict[str, Any] | None) -> Checkpoint | None:
    return Checkpoint(**{**found, "folder": Path(found["folder"])}) if found else None


def known(value: Any) -> tuple[str, int] | None:
    """Evaluation and rater of a line's id; None of what is none."""
    found = _ID.fullmatch(str(value).strip()) if value is not None else None
    return (found[1], int(found[2])) if found else None


def lines(ballot: Ballot, rater: int, seed: int, checks: int, repeats: int) -> list[Line]:
    """The lines of one rater's sheet in their order, without marks.

    Prompts come in random order, and so do the answers to each. A repeated answer comes at least a third of the sheet after it
    was shown first. Of a short sheet at most a quarter is repeated, and a quarter more are checks, but one check at least.
    Checks ask for different scores, so that who gives one and the same throughout fails one of two.

    Args:
        ballot: the answers.
        rater: number, from 1.
        seed: of the order.
        checks: lines that say which score is to be given.
        repeats: answers that are shown twice.
    """
    draw = random.Random(f"{seed}:{rater}:{ballot.dataset.digests.get('canonical', '')}")
    by_place = dict[int, list[int]]()
    for number, answer in enumerate(ballot.answers):
        by_place.setdefault(answer.place, []).append(number)
    drafts = list[tuple[Kind, int, int, int]]()
    for place in draw.sample(list(by_place), len(by_place)):
        answers = draw.sample(by_place[place], len(by_place[place]))
        drafts += [(Kind.answer, each, 0, shown) for shown, each in enumerate(answers, 1)]
    quarter, first = len(drafts) // 4, drafts[: len(drafts) // 2]
    for again in draw.sample(first, min(repeats, quarter, len(first))):
        begin = drafts.index(again) + len(drafts) // 3 + 1
        drafts.insert(draw.randint(begin, len(drafts)), (Kind.repeat, again[1], 0, again[3]))
    asked = cycle(draw.sample(_ASKED, len(_ASKED)))
    for _ in range(min(checks, max(1, quarter))):
        wanted, of = next(asked), draw.randrange(len(ballot.answers))
        drafts.insert(draw.randint(len(drafts) // 4, len(drafts)), (Kind.check, of, wanted, 1))
    return [Line(f"{ballot.evaluation}-{rater}-{number:05d}", rater, *draft) for number, draft in enumerate(drafts, 1)]


def marked(found: Sequence[Line], texts: Sequence[tuple[str, str]]) -> list[Line]:
    """Lines that know the texts (marks of prompt and answer) that are shown in them."""
    return [
        dataclasses.replace(line, prompt_mark=prompt, answer_mark=answer)
        for line, (prompt, answer) in zip(found, texts, strict=True)
    ]
