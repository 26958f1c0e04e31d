"""Check the rows of a file, one after another: memory grows with neither the rows nor the findings.

(But for exact duplicates, of which 16 bytes a row are remembered: about 150 MB for a million rows, twice that in a folder.)

Two tiers: structure (fields, types, roles, blank texts), as quick as reading; and, if wanted, contents (what should not be in
a text, duplicates, lengths in tokens).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice

from mlops_llm.data.findings import Findings
from mlops_llm.data.kinds import REFERENCES, Kind
from mlops_llm.data.rows import Record, Row
from mlops_llm.data.structure import ANSWERS, TRIMMED, Checker, kind_of_most, parts, texts, trimmed
from mlops_llm.data.suspects import clean, suspects
from mlops_llm.errors import UserError

HEAD = 200
"""Rows by which the kind of a file is told."""
CHUNK = 2000
"""Rows whose tokens are counted at once."""


CountTokens = Callable[[list[Row]], list[int]]
"""Rows with their kind's own fields -> tokens of each as the model sees it."""


@dataclass(frozen=True)
class Checks:
    """What is looked for."""

    contents: bool = True
    """Also look into texts, and for duplicates."""
    max_tokens: int = 512
    """Rows with more tokens are cut in training."""
    keep: int = 20
    """Findings kept of each rule."""


@dataclass
class Report:
    """What a check found."""

    findings: Findings
    kind: Kind | None = None
    rows: int = 0
    """Rows, readable or not."""
    read: int = 0
    """Readable rows."""
    fields: Counter[str] = field(default_factory=Counter)
    """Field -> rows that have it."""
    sound: int = 0
    """Rows that have what their kind needs."""
    characters: Counter[str] = field(default_factory=Counter)
    """`prompt` and each answer -> characters in all sound rows."""
    told: Counter[str] = field(default_factory=Counter)
    """`reference` and `label` -> sound rows of an evaluation that have one."""
    longest: int = 0
    """Tokens of the longest row, where they were counted."""

    @property
    def means(self) -> dict[str, float]:
        """Mean characters of the prompt and of each answer."""
        return {name: total / max(1, self.sound) for name, total in self.characters.items() if total}


def check(
    records: Iterable[Record],
    wanted: Kind | None,
    how: Checks,
    count: Callable[[Kind], CountTokens] | None = None,
    natural: Kind | None = None,
    several: bool = False,
) -> Report:
    """Check rows one after another.

    Args:
        records: of `formats.records`; a `UserError` from it becomes a finding about the file.
        wanted: what the rows are for; None tells it from most of the first 200.
        how: what to look for.
        count: makes what counts the tokens of rows of a kind; None counts none.
        natural: the kind that most rows tell by their fields; None asks the first 200.
        several: the rows are of several files, which findings name.
    """
    report = Report(Findings(how.keep))
    following = _guarded(records, report.findings)
    head = list(islice(following, HEAD))
    natural = natural or kind_of_most(record.row for record in head if record.row is not None)
    report.kind = wanted or natural
    if report.kind is None:
        _unknown(chain(head, following), report)
        return report
    counter = count(report.kind) if count and how.contents else None
    checking = _Checking(report, report.kind, Checker(report.kind, natural), how, counter)
    for number, record in enumerate(chain(head, following), 1):
        if several:
            report.findings.file = record.file
        checking.take(record, number)
    report.findings.file = ""
    checking.close()
    return report


class _Checking:
    """The rows of one kind, one after another."""

    def __init__(self, report: Report, kind: Kind, checker: Checker, how: Checks, counter: CountTokens | None) -> None:
        self._report, self._kind, self._checker, self._how, self._counter = report, kind, checker, how, counter
        self._seen: dict[bytes, int | str] = {}
        self._waiting: list[tuple[int, int, Row]] = []
        self._shapes: Counter[tuple[str, ...]] = Counter()
        self._measured = ["prompt", *ANSWERS[kind]]
        self._lengths = [0] * len(self._measured)

    def take(self, record: Record, number: int) -> None:
        """Check a row; `number` counts from 1."""
        report, row = self._report, record.row
        report.rows = number
        if row is None:
            report.findings.add("unreadable", record.line, "", record.problem, record.remedy, number)
            return
        self._shapes[tuple(row)] += 1
        mine = self._sound(row, record.line, number)
        report.sound += mine is not None
        if mine is not None and self._kind is Kind.eval:
            report.told["reference"] += any(mine.get(name) not in (None, "", []) for name in REFERENCES)
            report.told["label"] += mine.get("label") not in (None, "")
        if not self._how.contents:
            return
        _look(row, record.line, number, self._seen, report.findings)
        if mine is not None and self._counter:
            self._waiting.append((record.line, number, mine))
            if len(self._waiting) == CHUNK:
                self._count_tokens()

    def close(self) -> None:
        """Complete the report."""
        self._count_tokens()
        report = self._report
        for shape, times in self._shapes.items():
            report.fields.update(dict.fromkeys(shape, times))
        report.characters.update(dict(zip(self._measured, self._lengths, strict=True)))
        report.read = report.rows - report.findings.counts["unreadable"]

    def _sound(self, row: Row, line: int, number: int) -> Row | None:
        """The row in our fields where it has what its kind needs; its characters are counted, its flaws noted."""
        lengths = self._lengths
        if self._checker.quick(row):
            for place, name in enumerate(self._measured):
                value = row.get(name)
                if type(value) is str:
                    lengths[place] += len(value)
            return row
        mine, problems = self._checker.examined(row)
        for rule, name, what, remedy in problems:
            self._report.findings.add(rule, line, name, what, remedy, number)
        if mine is not None:
            for place, text in enumerate(parts(mine, self._kind)):
                lengths[place] += len(text)
        return mine

    def _count_tokens(self) -> None:
        if self._waiting and self._counter:
            _measure(self._waiting, self._report, self._how.max_tokens, self._counter)
        self._waiting = []


def identity(row: Row) -> bytes:
    """What two rows share exactly if every nested value is equal, whatever the order of their keys."""
    try:
        import orjson

        return blake2b(orjson.dumps(row, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
    except (ImportError, TypeError):  # orjson refuses lone surrogates and numbers beyond 64 bits
        text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _guarded(records: Iterable[Record], findings: Findings) -> Iterator[Record]:
    """The records, until the file itself cannot be read any further."""
    try:
        yield from records
    except UserError as error:
        findings.add("unreadable", 0, "", error.what, error.remedy, row=-1)


def _unknown(records: Iterable[Record], report: Report) -> None:
    """Count rows of which nothing tells what they are for."""
    for record in records:
        report.rows += 1
        if record.row is None:
            report.findings.add("unreadable", record.line, "", record.problem, record.remedy, report.rows)
        else:
            report.fields.update(record.row.keys())
            known = "give kind=sft (or another), or map columns: 'read.columns={prompt:COLUMN,response:COLUMN}'"
            report.findings.add("structure", record.line, "", "no kind of rows has these fields", known, report.rows)
    report.read = report.rows - report.findings.counts["unreadable"]


def _look(row: Row, line: int, number: int, seen: dict[bytes, int | str], findings: Findings) -> None:
    """Look into a row's texts, and for an earlier row that is the same."""
    for name, text in texts(row):
        if not clean(text):
            for rule, what in suspects(text):
                findings.add(rule, line, name, what, row=number)
        blanks = text and (text[0].isspace() or text[-1].isspace())
        if blanks and name.rpartition(".")[2] in TRIMMED and trimmed(text) != text:
            findings.add("untrimmed", line, name, "begins or ends with blanks", row=number)
    known = len(seen)
    first = seen.setdefault(identity(row), f"{line} of {findings.file}" if findings.file else line)
    if len(seen) == known:
        findings.add("duplicate", line, "", f"is the same as the row on line {first}", row=number)


def _measure(waiting: list[tuple[int, int, Row]], report: Report, most: int, counter: CountTokens) -> None:
    lengths = counter([row for _, _, row in waiting])
    report.longest = max(report.longest, *lengths)
    for (line, number, _), tokens in zip(waiting, lengths, strict=True):
        if tokens > most:
            report.findings.add("too_long", line, "", f"{tokens} tokens, {tokens - most} over {most}", row=number)
