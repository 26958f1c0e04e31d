"""Mend what a machine can mend in rows, and say what it did; the rest is left for a person.

Rules, in this order: control characters and half characters go, marks of chat templates go, blanks around texts go, names of
roles are written as this project writes them, rows that are unreadable or hold nothing go, exact repetitions go. Mending mended
rows changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.data.findings import Findings
from mlops_llm.data.kinds import Kind
from mlops_llm.data.rows import Record, Row
from mlops_llm.data.structure import TRIMMED, TURNS, Checker, trimmed
from mlops_llm.data.suspects import CONTROL, LEFTOVER, SURROGATE
from mlops_llm.data.validate import identity

CLAIMS = ("unreadable", "blank", "surrogate", "control", "leftover", "untrimmed", "duplicate", "bom")
"""Rules of findings that mended rows give no more."""
DONE = {
    "control": "texts rid of control or invisible characters",
    "surrogate": "texts rid of half characters",
    "leftover": "texts rid of marks of a chat template",
    "untrimmed": "texts trimmed",
    "roles": "names of roles mended",
    "unreadable": "unreadable rows dropped",
    "blank": "rows with an empty text dropped",
    "duplicate": "repeated rows dropped",
}
"""Rule -> what was done, in words."""
_ROLES = {
    "human": "user", "用户": "user", "usr": "user", "customer": "user", "gpt": "assistant", "bot": "assistant",
    "ai": "assistant", "chatgpt": "assistant", "model": "assistant", "助手": "assistant", "function": "tool",
    "observation": "tool", "系统": "system",
}  # fmt: skip
_ROLES_KNOWN = ("system", "user", "assistant", "tool")
_SPEAKERS = {"user": "human", "assistant": "gpt", "usr": "human", "用户": "human", "助手": "gpt", "bot": "gpt", "ai": "gpt",
             "chatgpt": "gpt", "model": "gpt", "系统": "system", "tool": "observation"}  # fmt: skip
_SPEAKERS_KNOWN = ("human", "gpt", "user", "assistant", "system", "tool", "observation", "function_call")


@dataclass
class Repair:
    """Mends rows, counting what it does."""

    kind: Kind
    natural: Kind | None = None
    keep: int = 20
    """Findings kept of each rule."""
    done: Counter[str] = field(default_factory=Counter)
    """Rule -> texts or rows changed."""
    rows: int = 0
    """Rows left."""

    def __post_init__(self) -> None:
        """Prepare the check of what is left."""
        self.left = Findings(self.keep)
        self._checker = Checker(self.kind, self.natural or self.kind)
        self._seen: set[bytes] = set()

    def mended(self, records: Iterable[Record]) -> Iterator[Row]:
        """The rows that are left, mended; what a person must mend stays in them and is counted in `left`."""
        for record in records:
            if record.row is None:
                self.done["unreadable"] += 1
                continue
            row = mend(record.row, self.done)
            problems = [] if self._checker.quick(row) else self._checker.problems(row)
            if any(problem.rule == "blank" for problem in problems):
                self.done["blank"] += 1
                continue
            key = identity(row)
            if key in self._seen:
                self.done["duplicate"] += 1
                continue
            self._seen.add(key)
            self.rows += 1
            for rule, name, what, remedy in problems:
                self.left.add(rule, record.line, name, what, remedy, self.rows)
            yield row


def mend(row: Row, done: Counter[str]) -> Row:
    """A row with its texts mended and the names of its roles normalised; what was done is counted in `done`."""
    mended: Row = {_free_of(key): _mended(value, key, done) for key, value in row.items()}
    for field_name in TURNS:
        turns = mended.get(field_name)
        if isinstance(turns, list):
            mended[field_name] = [_spoken(turn, done) for turn in turns]
    return mended


def _mended(value: Any, name: str, done: Counter[str]) -> Any:
    if isinstance(value, str):
        return _text(value, done, trim=name in TRIMMED)
    if isinstance(value, list):
        return [_mended(each, name, done) for each in value]
    if isinstance(value, dict):
        return {_free_of(key): _mended(each, key, done) for key, each in value.items()}
    return value


def _text(text: str, done: Counter[str], *, trim: bool) -> str:
    before = None
    changed = set()
    while text != before:  # what is taken out may leave another mark behind
        before = text
        for rule, pattern in (("surrogate", SURROGATE), ("control", CONTROL), ("leftover", LEFTOVER)):
            text, times = pattern.subn("", text)
            if times:
                changed.add(rule)
        if trim and (bare := trimmed(text)) != text:
            text = bare
            changed.add("untrimmed")
    done.update(changed)
    return text


def _free_of(name: str) -> str:
    """A field's name without control characters, such as the mark that Excel writes before the first."""
    return SURROGATE.sub("", CONTROL.sub("", name))


def _spoken(turn: Any, done: Counter[str]) -> Any:
    for key, known, names in (("role", _ROLES_KNOWN, _ROLES), ("from", _SPEAKERS_KNOWN, _SPEAKERS)):
        if isinstance(turn, dict) and isinstance(turn.get(key), str) and turn[key] not in known:
            bare = turn[key].strip().lower()
            name = bare if bare in known else names.get(bare)
            if name:
                done["roles"] += 1
                return {**turn, key: name}
    return turn
