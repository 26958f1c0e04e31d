"""Check the rows of a file, one after another: memory grows with neither the rows nor the findings.

(But for exact duplicates, of which 16 bytes a row are remembered: about 150 MB for a million rows, twice that in a folder.)

Two tiers: structure (fields, types, roles, blank texts), as quick as reading; and, if wanted, contents (what should not be in
a text, duplicates, lengths in tokens).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from typing import Any

from mlops_llm.data import parted
from mlops_llm.data.engine import Engine
from mlops_llm.data.findings import Findings
from mlops_llm.data.kinds import REFERENCES, Kind
from mlops_llm.data.parted import Numbered
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

    def add(self, other: Mapping[str, Any]) -> None:
        """Join a report on the rows that follow, as `plain` gave it."""
        self.findings.join(other["findings"])
        for name in ("rows", "sound"):
            setattr(self, name, getattr(self, name) + other[name])
        for name in ("fields", "characters", "told"):
            getattr(self, name).update(other[name])
        self.longest = max(self.longest, other["longest"])

    def plain(self) -> dict[str, Any]:
        """What `add` reads, as JSON holds it."""
        counted = {name: dict(getattr(self, name)) for name in ("fields", "characters", "told")}
        numbers = {name: getattr(self, name) for name in ("rows", "sound", "longest")}
        return {"findings": self.findings.plain(), **counted, **numbers}

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
    engine: Engine | None = None,
) -> Report:
    """Check rows one after another.

    Args:
        records: of `formats.records`; a `UserError` from it becomes a finding about the file.
        wanted: what the rows are for; None tells it from most of the first 200.
        how: what to look for.
        count: makes what counts the tokens of rows of a kind; None counts none.
        natural: the kind that most rows tell by their fields; None asks the first 200.
        several: the rows are of several files, which findings name.
        engine: where parts of the rows are looked at, each by itself; None looks here. What is found is the same.
    """
    report, broken = Report(Findings(how.keep)), Findings(how.keep)
    following = _guarded(records, broken)
    head = list(islice(following, HEAD))
    natural = natural or kind_of_most(record.row for record in head if record.row is not None)
    report.kind = wanted or natural
    if report.kind is None:
        _unknown(chain(head, following), report)
        return _whole(report, broken)
    counter = count(report.kind) if count and how.contents else None
    rows, made = chain(head, following), partial(_Checking, report.kind, Checker(report.kind, natural), how, counter, several)
    seen = _Seen(report.findings)
    if engine is None:
        checking = made(report, seen.look)
        for number, record in enumerate(rows, 1):
            checking.take(record, number)
        checking.close()
    else:
        for found in parted.each(partial(_part, made=made, keep=how.keep), rows, engine):
            report.add(found["report"])
            for same, line, number, file in found["seen"]:
                seen.look(bytes.fromhex(same), line, number, file)
    return _whole(report, broken)


def _whole(report: Report, broken: Findings) -> Report:
    """The report with what is wrong with the file itself, which comes last."""
    report.findings.join(broken.plain())
    report.read = report.rows - report.findings.counts["unreadable"]
    return report


def _part(rows: list[Numbered], made: Callable[..., _Checking], keep: int) -> dict[str, Any]:
    """The check of some of the rows: a report on them, and by what each is compared with those elsewhere."""
    report, seen = Report(Findings(keep)), list[tuple[str, int, int, str]]()
    checking = made(report, lambda same, line, number, file: seen.append((same.hex(), line, number, file)))
    for number, record in rows:
        checking.take(record, number)
    checking.close()
    return {"report": report.plain(), "seen": seen}


Look = Callable[[bytes, int, int, str], None]
"""Takes what a row is compared by, its line, its number and its file, where there are several."""


class _Seen:
    """The rows so far, by what they share with equal ones; a second one is a finding."""

    def __init__(self, findings: Findings) -> None:
        self._findings, self._seen = findings, dict[bytes, int | str]()

    def look(self, same: bytes, line: int, number: int, file: str) -> None:
        """Take the next row."""
        known = len(self._seen)
        first = self._seen.setdefault(same, f"{line} of {file}" if file else line)
        if len(self._seen) == known:
            self._findings.file = file
            self._findings.add("duplicate", line, "", f"is the same as the row on line {first}", row=number)
            self._findings.file = ""


class _Checking:
    """The rows of one kind, one after another."""

    def __init__(
        self,
        kind: Kind,
        checker: Checker,
        how: Checks,
        counter: CountTokens | None,
        several: bool,
        report: Report,
        compare: Look,
    ) -> None:
        self._report, self._kind, self._checker, self._how, self._counter = report, kind, checker, how, counter
        self._several, self._compare = several, compare
        self._waiting: list[tuple[int, Record, Row]] = []
        self._shapes: Counter[tuple[str, ...]] = Counter()
        self._measured = ["prompt", *ANSWERS[kind]]
        self._lengths = [0] * len(self._measured)

    def take(self, record: Record, number: int) -> None:
        """Check a row; `number` counts from 1."""
        report, row = self._report, record.row
        file = report.findings.file = record.file if self._several else ""
        report.rows += 1
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
        _look(row, record.line, number, report.findings)
        self._compare(identity(row), record.line, number, file)
        if mine is not None and self._counter:
            self._waiting.append((number, record, mine))
            if len(self._waiting) == CHUNK:
                self._count_tokens()

    def close(self) -> None:
        """Complete the report."""
        self._count_tokens()
        report = self._report
        report.findings.file = ""
        for shape, times in self._shapes.items():
            report.fields.update(dict.fromkeys(shape, times))
        report.characters.update(dict(zip(self._measured, self._lengths, strict=True)))

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
            _measure(self._waiting, self._report, self._how.max_tokens, self._counter, self._several)
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


def _look(row: Row, line: int, number: int, findings: Findings) -> None:
    """Look into a row's texts."""
    for name, text in texts(row):
        if not clean(text):
            for rule, what in suspects(text):
                findings.add(rule, line, name, what, row=number)
        blanks = text and (text[0].isspace() or text[-1].isspace())
        if blanks and name.rpartition(".")[2] in TRIMMED and trimmed(text) != text:
            findings.add("untrimmed", line, name, "begins or ends with blanks", row=number)


def _measure(waiting: list[tuple[int, Record, Row]], report: Report, most: int, counter: CountTokens, several: bool) -> None:
    lengths = counter([row for _, _, row in waiting])
    report.longest = max(report.longest, *lengths)
    before = report.findings.file
    for (number, record, _), tokens in zip(waiting, lengths, strict=True):
        if tokens > most:
            report.findings.file = record.file if several else ""
            report.findings.add("too_long", record.line, "", f"{tokens} tokens, {tokens - most} over {most}", row=number)
    report.findings.file = before
