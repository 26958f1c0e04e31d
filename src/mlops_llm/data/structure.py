"""Whether a row has what its kind needs: fields, types, texts, turns in order, answers that differ, a solution."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mlops_llm.data import solutions
from mlops_llm.data.kinds import FIELDS, Kind, infer, own
from mlops_llm.data.read import Row
from mlops_llm.data.texts import sides, spoken
from mlops_llm.errors import UserError

TEXTS = ("prompt", "response", "completion", "chosen", "rejected", "solution", "instruction", "output", "question", "answer")
"""Fields that hold a text in some shape of rows; `input` and `system` may be empty."""
ANSWERS: Mapping[Kind, tuple[str, ...]] = {
    Kind.sft: ("response",),
    Kind.dpo: ("chosen", "rejected"),
    Kind.kto: ("response",),
    Kind.ppo: (),
    Kind.grpo: ("solution",),
    Kind.eval: ("reference",),
}
"""Kind -> names of what is answered."""
TRIMMED = frozenset({*TEXTS, "content", "value", "system", "input"})
"""Fields in which blanks around the text mean nothing."""
TURNS = ("messages", "conversations", "prompt", "chosen", "rejected")
"""Fields that may hold a list of turns."""
_FOREIGN = {"messages", "conversations", "completion", "instruction", "output", "question", "Question", "choices", "choice0",
            "canonical_solution", "system", "tools", "kto_tag"}  # fmt: skip
_ROLES = re.compile(
    r"follows one by|answers nothing|the last turn is by|ends with a turn by|has an answer before|has no role|\.role'|\.from'|"
    r"lacks 'from'"
)
"""What chat.py and kinds.py say of turns whose order or roles are wrong."""


class Problem(NamedTuple):
    """What keeps a row from being used."""

    rule: str
    """A key of `findings.RULES`."""
    field: str
    what: str
    remedy: str = ""


class Checker:
    """Checks rows of one kind; rows whose shape was seen to be sound cost a few comparisons."""

    def __init__(self, kind: Kind, natural: Kind | None) -> None:
        """Check rows for use as `kind`.

        Args:
            kind: what the rows are to be used for.
            natural: the kind that the fields of most rows tell; rows that tell another are of mixed kinds.
        """
        self._kind, self._natural = kind, natural
        self._fields = tuple(field for field in FIELDS[kind] if field != "label")
        self._sound: set[tuple[str, ...]] = set()

    def quick(self, row: Row) -> bool:
        """Whether a row is sound as far as a few comparisons can tell; if not, ask `problems`."""
        if tuple(row) not in self._sound:
            return False
        for field in self._fields:
            value = row[field]
            if type(value) is not str or not value or value.isspace():
                return False
        if self._kind is Kind.dpo:
            return bool(row["chosen"].strip() != row["rejected"].strip())
        if self._kind is Kind.grpo:
            return row["solution"].isdecimal() or not solutions.problem(row["solution"])
        return self._kind is not Kind.kto or type(row["label"]) is bool

    def problems(self, row: Row) -> list[Problem]:
        """All that is wrong with a row, the worst first."""
        return self.examined(row)[1]

    def examined(self, row: Row) -> tuple[Row | None, list[Problem]]:
        """The row with its kind's own fields (None where it has not what they need), and all that is wrong with it."""
        blank = list(_blank(row))
        if blank:
            return None, blank
        try:
            mine = own(row, self._kind, "")
        except UserError as error:
            return None, [self._explained(row, error)]
        except (TypeError, AttributeError, LookupError) as error:  # other people's rows hold anything
            return None, [Problem("structure", "", f"its values are not those of {self._kind.name} ({type(error).__name__})")]
        found = list(_contents(mine, self._kind))
        told = infer(row)
        # A prompt without reference is a sound row of an evaluation.
        if told is not self._natural and not (self._kind is Kind.eval and told in (Kind.ppo, Kind.eval)):
            found.append(
                Problem("convertible", "", f"its fields are those of {told.name if told else 'no kind'}{_among(self._natural)}")
            )
        if not found and mine is row and not _FOREIGN & row.keys():
            self._sound.add(tuple(row))
        return mine, found

    def _explained(self, row: Row, error: UserError) -> Problem:
        told = infer(row)
        field = re.search(r"field '([^']{1,60})'", error.what)
        named = field[1] if field else ""
        if _ROLES.search(error.what):
            return Problem("roles", named, error.what, error.remedy)
        if error.what.endswith("is empty"):
            return Problem("blank", named, error.what, error.remedy)
        # A prompt alone is what is left of any row that lacks the rest.
        if told not in (None, Kind.ppo, self._natural) and error.what.startswith("has no "):
            return Problem("mixed", named, f"its fields are those of {told.name}{_among(self._natural)}")
        return Problem("structure", named, error.what, error.remedy)


def kind_of_most(rows: Iterable[Row]) -> Kind | None:
    """The kind that most rows tell by their fields; None where none does."""
    told = Counter(kind for kind in map(infer, rows) if kind)
    return told.most_common(1)[0][0] if told else None


def turns(row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    """All turns of a row in any shape, each with the name of its place."""
    for field in TURNS:
        value = row.get(field)
        if isinstance(value, list):
            for place, turn in enumerate(value):
                if isinstance(turn, dict):
                    yield f"{field}[{place}]", turn


def _blank(row: Row) -> Iterator[Problem]:
    """Texts that are there and hold nothing but blanks."""
    for field in TEXTS:
        value = row.get(field)
        if isinstance(value, str) and not value.strip():
            yield Problem("blank", field, "is empty" if not value else "holds nothing but blanks")
    for field, turn in turns(row):
        said = turn.get("content", turn.get("value"))
        speaker = str(turn.get("role", turn.get("from")))
        spoken = speaker not in ("system", "tool", "observation") and not turn.get("tool_calls")
        if spoken and isinstance(said, str) and not said.strip():
            yield Problem("blank", field, "the turn is empty")


def _contents(row: Row, kind: Kind) -> Iterator[Problem]:
    if kind is Kind.dpo and row["chosen"].strip() == row["rejected"].strip():
        yield Problem("same_answers", "rejected", "is the same as chosen")
    if kind is Kind.grpo and (said := solutions.problem(row["solution"])):
        yield Problem("solution", "solution", said)


def _among(natural: Kind | None) -> str:
    return f", most rows are {natural.name}" if natural else ""


def texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All texts in a row at any depth, each with the name of its place, such as `messages[0].content`."""
    waiting: list[tuple[str, Any]] = [(str(key), value) for key, value in reversed(list(row.items()))]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            waiting += [(f"{name}.{key}", inner) for key, inner in reversed(list(value.items()))]
        elif isinstance(value, list):
            waiting += [(f"{name}[{place}]", inner) for place, inner in reversed(list(enumerate(value)))]


def parts(row: Row, kind: Kind) -> list[str]:
    """The prompt and each of `ANSWERS` of a row with its kind's own fields, all turns of a kind joined by new lines.

    Answers within a conversation belong to the prompt where only the next one is learned or judged, else to the response.
    """
    asked, answered, solution = sides(row)
    turns = spoken(row, learned=False)
    if kind not in (Kind.sft, Kind.kto) and turns:
        asked = "\n".join(filter(None, sides({"messages": turns})[:2]))
    if kind is Kind.dpo:
        return [asked, row["chosen"], row["rejected"]]
    if kind is Kind.grpo:
        return [asked, solution or ""]
    return [asked, answered] if ANSWERS[kind] else [asked]


def trimmed(text: str) -> str:
    """A text without the blanks around it; one whose lines are indented, such as code, stays as it is."""
    bare = text.strip()
    several = "\n" in bare
    indented = several and ("\n " in bare or "\n\t" in bare or text.lstrip("\r\n").startswith((" ", "\t")))
    return text if indented else bare
