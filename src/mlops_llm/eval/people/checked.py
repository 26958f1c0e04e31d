"""What a rater's file says, checked against the key: whose it is, what was altered, and every score."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.people.ballot import Ballot, Kind, Line, known
from mlops_llm.eval.people.cells import mark
from mlops_llm.eval.people.returned import Returned, Row
from mlops_llm.eval.people.words import LEAST, MOST, WORDS, plain

FAR = 2
"""Points by which two ratings of one answer contradict each other."""
_DONE = 0.9
"""Share of the answers with a score from which on an empty check was passed over, not left for later."""
_ANEW = "take the file as it was exported, and fill it in anew"


@dataclass(frozen=True)
class Fault:
    """Something that cannot be taken."""

    where: str
    """File, sheet and cell."""
    what: str


@dataclass(frozen=True)
class Rated:
    """What a rater says of a line."""

    line: Line
    row: int
    """Number in the file."""
    scores: dict[str, int]
    """Of the dimensions that have one."""
    comment: str = ""
    prompt: str = ""
    answer: str = ""


@dataclass
class Filled:
    """One rater's file."""

    returned: Returned
    rater: int
    dimensions: Sequence[str]
    rated: dict[str, Rated] = field(default_factory=dict)
    """By id of the line."""
    faults: list[Fault] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Cells without a score."""
    missing: int = 0
    """Lines that are not in the file any more."""
    seen: dict[str, int] = field(default_factory=dict)
    """Id of each line in the file, also of one that cannot be taken -> its row."""

    @property
    def is_in_order(self) -> bool:
        """Whether the rows stand as they were shown; of sorted ones nobody knows which of two answers was read first."""
        numbers = [int(each.line.id.rpartition("-")[2]) for each in sorted(self.rated.values(), key=lambda each: each.row)]
        return numbers == sorted(numbers)

    def failed_checks(self) -> list[str]:
        """Cells in which a check has another score than it asks for, or none; of who is not done, only checks with a score."""
        answers = [bool(each.scores) for each in self.rated.values() if each.line.kind is not Kind.check]
        is_done = bool(answers) and sum(answers) >= _DONE * (len(answers) + self.missing)
        checks = [each for each in self.rated.values() if each.line.kind is Kind.check and (each.scores or is_done)]
        return [
            self.returned.where(each.row, name)
            for each in checks
            for name in self.dimensions
            if each.scores.get(name) != each.line.wanted
        ]

    def contradictions(self) -> dict[int, list[str]]:
        """Place of a repeated answer -> cells in which it is rated quite otherwise than at first."""
        first = {each.line.answer: each for each in self.rated.values() if each.line.kind is Kind.answer}
        found = dict[int, list[str]]()
        for again in self.repeated():
            before = first[again.line.answer]
            for name in (each for each in again.scores if each in before.scores):
                if abs(again.scores[name] - before.scores[name]) >= FAR:
                    cells = f"{self.returned.where(before.row, name)} and {self.returned.where(again.row, name)}"
                    found.setdefault(again.line.answer, []).append(cells)
        return found

    def repeated(self) -> list[Rated]:
        """Answers that were rated a second time."""
        first = {each.line.answer for each in self.rated.values() if each.line.kind is Kind.answer and each.scores}
        again = [each for each in self.rated.values() if each.line.kind is Kind.repeat and each.scores]
        return [each for each in again if each.line.answer in first]

    @property
    def is_careless(self) -> bool:
        """Whether a check failed, or at least half of the repeated answers, and two of them, are contradicted."""
        against = len(self.contradictions())
        return bool(self.failed_checks()) or (against > 1 and 2 * against >= len(self.repeated()))


def evaluation(returned: Returned) -> str:
    """The evaluation that most rows of a file belong to.

    Raises:
        UserError: no row has an id.
    """
    found = Counter(one[0] for _, row in returned.rows if (one := known(returned.value(row, "id"))))
    if not found:
        raise UserError("no row has its id any more", str(returned.file), _ANEW)
    return found.most_common(1)[0][0]


def check(returned: Returned, ballot: Ballot) -> Filled:
    """Check every row and every score.

    Raises:
        UserError: the file is of another evaluation, a column is gone, or nothing is filled in.
    """
    if (other := evaluation(returned)) != ballot.evaluation:
        what = f"is of evaluation {other}, not of {ballot.evaluation}"
        raise UserError(what, str(returned.file), "import the files of one evaluation at once")
    returned = replace(returned, columns=_columns(returned, ballot))
    raters = Counter(one[1] for _, row in returned.rows if (one := known(returned.value(row, "id"))))
    filled = Filled(returned, raters.most_common(1)[0][0], ballot.dimensions)
    for number, row in returned.rows:
        if (line := _line(filled, (number, row), ballot)) and _is_unaltered(filled, (number, row), line):
            filled.rated[line.id] = _rated(filled, (number, row), line)
    if not any(each.scores for each in filled.rated.values()) and not filled.faults:
        raise UserError("holds no score", str(returned.file), "fill it in, and save it")
    filled.missing = sum(each.rater == filled.rater and each.id not in filled.seen for each in ballot.lines.values())
    return filled


def _columns(returned: Returned, ballot: Ballot) -> dict[str, int]:
    found: dict[str, int] = {name: returned.columns[name] for name in ("id", "comment") if name in returned.columns}
    for name in ("prompt", "answer", *ballot.dimensions):
        headings = [plain(name), *(plain(words.label(name)) for words in WORDS.values())]
        place = next((returned.columns[each] for each in (name, *headings) if each in returned.columns), None)
        if place is None:
            shown = " or ".join(dict.fromkeys(f"'{words.label(name)}'" for words in WORDS.values()))
            where = f"{returned.file}{f', sheet {returned.sheet}' if returned.sheet else ''}"
            raise UserError(f"has no column {shown} any more", where, "give the column its heading back")
        found[name] = place
    return found


def _line(filled: Filled, row: Row, ballot: Ballot) -> Line | None:
    """The line that a row is; None of a person's own row, and of one that cannot be taken."""
    number, values = row
    returned, said = filled.returned, filled.returned.value(values, "id")
    where = filled.returned.where(number)
    if said in (None, ""):
        if any(returned.value(values, name) not in (None, "") for name in ("prompt", "answer", *filled.dimensions)):
            filled.faults.append(Fault(where, "is empty, so that nobody knows which row this is"))
        return None
    line = ballot.lines.get(str(said).strip())
    if line is None:
        of_other = (one := known(said)) and one[0] != ballot.evaluation
        filled.faults.append(Fault(where, f"'{str(said)[:40]}' is {'of another evaluation' if of_other else 'no id of a row'}"))
    elif line.rater != filled.rater:
        filled.faults.append(Fault(where, f"is a row of rater {line.rater} in the file of rater {filled.rater}"))
    elif line.id in filled.seen:
        filled.faults.append(Fault(where, f"is the same row as {returned.where(filled.seen[line.id])}"))
    else:
        filled.seen[line.id] = number
        return line
    return None


def _is_unaltered(filled: Filled, row: Row, line: Line) -> bool:
    number, values = row
    for column, wanted in (("prompt", line.prompt_mark), ("answer", line.answer_mark)):
        said = filled.returned.value(values, column)
        if mark(str(said if said is not None else "")) != wanted:
            filled.faults.append(Fault(filled.returned.where(number, column), f"the {column} was altered"))
            return False
    return True


def _rated(filled: Filled, row: Row, line: Line) -> Rated:
    number, values = row
    returned, scores = filled.returned, dict[str, int]()
    for name in filled.dimensions:
        said = returned.value(values, name)
        if said is None or not str(said).strip():
            filled.empty.append(returned.where(number, name))
        elif (score := _score(said)) is None:
            what = f"is {str(said)[:40]!r}, not a whole number from {LEAST} to {MOST}"
            filled.faults.append(Fault(returned.where(number, name), what))
        else:
            scores[name] = score
    texts = [str(returned.value(values, name) or "") for name in ("comment", "prompt", "answer")]
    return Rated(line, number, scores, *texts)


def _score(said: Any) -> int | None:
    """A score, also where a program made a text of it; None of what is none."""
    if isinstance(said, bool):
        return None
    try:
        number = float(unicodedata.normalize("NFKC", str(said)).strip())
    except ValueError:
        return None
    return int(number) if number.is_integer() and LEAST <= number <= MOST else None
