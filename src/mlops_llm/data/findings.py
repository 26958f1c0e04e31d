"""What a check says of rows: every finding is counted, and of each rule the first few are kept to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from mlops_llm.errors import printable

SHORT = 80
"""Characters of a row that a finding repeats at most."""


class Severity(Enum):
    """How bad a finding is."""

    error = "error"
    """The rows cannot be used as they are."""
    warning = "warning"
    """They can, and a person should look."""


class Rule(NamedTuple):
    """What a check looks for."""

    severity: Severity
    summary: str
    """Of many rows: what they have in common; put behind their number."""
    remedy: str


RULES: dict[str, Rule] = {
    "unreadable": Rule(Severity.error, "rows cannot be read", "mend or remove the lines"),
    "structure": Rule(Severity.error, "rows lack a field or hold the wrong type", "add the field or map it with read.columns"),
    "mixed": Rule(Severity.error, "rows are of another kind than the rest", "keep each kind in its own file"),
    "blank": Rule(Severity.error, "rows have an empty or blank text", "fill it or remove the row"),
    "roles": Rule(Severity.error, "rows have roles that are unknown or out of order", "let user and assistant take turns"),
    "same_answers": Rule(Severity.error, "rows have chosen = rejected", "remove them: they teach nothing"),
    "solution": Rule(Severity.error, "solutions cannot be compared", "write one number or one short text"),
    "surrogate": Rule(Severity.error, "rows hold half a character (a lone surrogate)", "save the file as UTF-8 again"),
    "convertible": Rule(Severity.warning, "rows are of another kind, but can be used", "keep each kind in its own file"),
    "too_long": Rule(Severity.warning, "rows", "shorten them, or raise algo.max_tokens at training: longer rows are cut"),
    "control": Rule(Severity.warning, "rows hold control or invisible characters", "remove them: op.fix=true"),
    "replacement": Rule(
        Severity.warning, "rows hold � (text lost in an earlier conversion)", "take them from the original again"
    ),
    "untrimmed": Rule(Severity.warning, "rows have blanks around a text", "trim them: op.fix=true"),
    "leftover": Rule(
        Severity.warning, "rows hold marks of a chat template", "remove them: op.fix=true; the template adds its own"
    ),
    "duplicate": Rule(Severity.warning, "rows repeat an earlier one exactly", "remove them: op=dedup_exact, or op.fix=true"),
    "secret": Rule(Severity.warning, "rows may hold a credential", "look, revoke it where it is real, and take it out"),
    "personal": Rule(Severity.warning, "rows may hold personal data", "look, and take it out or make it up"),
    "bom": Rule(Severity.warning, "file begins with a byte order mark", "save it without: op.fix=true"),
    "large": Rule(Severity.warning, "file is over 100 MB", "nothing needs to be done; parquet or .zst is smaller"),
}
"""Rule -> what it means; in the order in which a summary names them."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong at one place; credentials and personal data in it are masked."""

    rule: str
    severity: Severity
    line: int
    """Line on which the row begins; 0 for the file as a whole."""
    field: str
    what: str
    remedy: str
    file: str = ""
    """Name of the file, where the dataset is a folder of several."""


@dataclass
class Findings:
    """All findings of a check: counted a row and rule, the first of each rule kept."""

    keep: int = 20
    """Findings kept of each rule."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rule -> rows (a row with two blank fields counts once)."""
    kept: dict[str, list[Finding]] = field(default_factory=dict)
    file: str = ""
    """Name of the file that is being read, where there are several."""
    _last: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, rule: str, line: int, field: str, what: str, remedy: str = "", row: int | None = None) -> None:
        """Count a finding, and keep it if it is among the first of its rule.

        Args:
            rule: a key of `RULES`.
            line: line of the row; 0 for the whole file.
            field: the field it is in.
            what: what is wrong; cut to 200 characters.
            remedy: what to do; empty takes the rule's own.
            row: the row's number, where several rows begin on one line.
        """
        place = line if row is None else row
        if self._last.get(rule) != (self.file, place):
            self.counts[rule] += 1
            self._last[rule] = (self.file, place)
        kept = self.kept.setdefault(rule, [])
        if len(kept) < self.keep:
            meaning = RULES[rule]
            what, remedy = printable(what)[:200], printable(remedy or meaning.remedy)[:200]
            kept.append(Finding(rule, meaning.severity, line, printable(field)[:SHORT], what, remedy, self.file))

    def join(self, other: Mapping[str, Any]) -> None:
        """Take the findings about the rows that follow, as `plain` gave them."""
        self.counts.update(other["counts"])
        for rule, found in other["kept"].items():
            kept = self.kept.setdefault(rule, [])
            kept += [Finding(rule, RULES[rule].severity, *each) for each in found[: self.keep - len(kept)]]

    def plain(self) -> dict[str, Any]:
        """The findings as JSON holds them."""
        kept = {
            rule: [(one.line, one.field, one.what, one.remedy, one.file) for one in found] for rule, found in self.kept.items()
        }
        return {"counts": dict(self.counts), "kept": kept}

    def of(self, severity: Severity) -> int:
        """Findings of a severity."""
        return sum(count for rule, count in self.counts.items() if RULES[rule].severity is severity)

    @property
    def errors(self) -> int:
        """Number of errors."""
        return self.of(Severity.error)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return self.of(Severity.warning)

    def all(self) -> list[Finding]:
        """The kept findings, errors first, each rule in the order of the lines."""
        return [finding for rule in RULES for finding in self.kept.get(rule, [])]

    def table(self) -> dict[str, list[Any]]:
        """The kept findings as columns, for the record."""
        found = self.all()
        return {
            "severity": [one.severity.value for one in found],
            "rule": [one.rule for one in found],
            **({"file": [one.file for one in found]} if any(one.file for one in found) else {}),
            "line": [one.line for one in found],
            "field": [one.field for one in found],
            "what": [one.what for one in found],
            "remedy": [one.remedy for one in found],
        }
