"""`op=validate`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlops_llm import console, files
from mlops_llm.component import component
from mlops_llm.data import tokens
from mlops_llm.data.config import Data, Work
from mlops_llm.data.engine import Where
from mlops_llm.data.findings import RULES, Findings, Severity
from mlops_llm.data.folders import here
from mlops_llm.data.formats import encoding_of, watched
from mlops_llm.data.identity import digests
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import ENDINGS, Row
from mlops_llm.data.ref import Place, locate
from mlops_llm.data.repair import DONE, Repair
from mlops_llm.data.skim import structure
from mlops_llm.data.validate import Checks, CountTokens, Report, check
from mlops_llm.errors import UserError
from mlops_llm.files import writable
from mlops_llm.record import Grid, Result, Run

LARGE = 100_000_000
"""Bytes over which a file is called large."""
_BOM = b"\xef\xbb\xbf"
_SHOWN = 20
LOOK = ("replacement", "secret", "personal")
"""Rules that no machine can mend."""


@component("op", "validate")
@dataclass
class Validate:
    """Check a dataset's structure, texts and lengths; exit code 1 if there are errors. The file is not changed."""

    records: ClassVar[bool] = True
    max_tokens: int = 512
    """Rows with more tokens, as the model sees them, are named: training cuts them."""
    model: str = "tiny"
    """Model whose tokenizer and chat template count."""
    keep: int = 20
    """Findings kept of each rule; all are counted."""
    structure_only: bool = False
    """Check fields, types, roles and blank texts only; quick on very large files."""
    engine: Where = Where.local
    """local checks in this process; ray spreads it over a Ray cluster (RAY_ADDRESS), which pays from several machines on."""
    fix: bool = False
    """Also write a repaired new file datasets/NAME_fixed.jsonl, and say what was changed."""

    def __post_init__(self) -> None:
        """Check the limits."""
        for setting, least in (("max_tokens", 1), ("keep", 1)):
            if getattr(self, setting) < least:
                raise UserError(f"is {getattr(self, setting)}", f"op.{setting}", f"give at least {least}")
        if self.structure_only and self.engine is not Where.local:
            raise UserError("is done while the file is read, which is here", "op.structure_only", "leave op.engine out")

    def prepare(self, request: Data) -> Work:
        """Find the file, the place of the repaired one, and the tokenizer."""
        self.engine.check()
        place = locate(request.wanted())
        fixed = self._fixed(place.name, request) if self.fix else None
        tokenizer = None if self.structure_only else tokens.tokenizer(self.model)
        return lambda run: self._work(place, fixed, tokenizer, request, run)

    def _fixed(self, name: str, request: Data) -> Path:
        from mlops_llm.tracking.datasets import check_name

        fixed = here() / f"{check_name(request.name or f'{name}_fixed')}.jsonl"
        if fixed.exists():
            raise UserError("is there already", str(fixed), "move it away, or give another name=")
        writable(fixed.parent)
        return fixed

    def _work(self, place: Place, fixed: Path | None, tokenizer: Any, request: Data, run: Run) -> Result:
        path, how = place.path, place.reading(request.read)

        def count(kind: Kind) -> CountTokens:
            return lambda rows: longest_view(tokenizer, rows, kind)

        if self.structure_only:
            report = structure(path, how, request.kind, self.keep)
        else:
            checks, rows = Checks(max_tokens=self.max_tokens, keep=self.keep), watched(path, how, "checking")
            with self.engine.engine() as engine:
                over = None if self.engine is Where.local else engine
                report = check(rows, request.kind, checks, count, several=path.is_dir(), engine=over)
        size = files.size(path)
        if size > LARGE:
            report.findings.add("large", 0, "", console.size(size), row=-1)
        if _begins_with_mark(path):
            report.findings.add("bom", 0, "", "the bytes EF BB BF", row=-1)
        shown: list[Grid | str] = [*summary(path, encoding_of(path, how), report, self.max_tokens)]
        table = report.findings
        values: dict[str, Any] = {"path": str(path), "fields": dict(report.fields), "counts": dict(table.counts)}
        values["digests"] = digests(path, how)
        values["findings"] = [vars(one) | {"severity": one.severity.value} for one in table.all()]
        failed = table.errors > 0
        if grid := _grid("findings", table):
            shown.append(grid)
        facts: dict[str, Any] = {
            "kind": report.kind.name if report.kind else None,
            "rows": report.rows,
            "errors": table.errors,
            "warnings": table.warnings,
        }
        run.metrics({f"data/{key}": facts[key] for key in ("rows", "errors", "warnings")}, 0)
        run.metrics({f"data/findings/{rule}": times for rule, times in table.counts.items()}, 0)
        place.record(run, report.rows, values["digests"])
        run.artifact("findings.json", table.table())
        if fixed and report.kind:
            repair = Repair(report.kind, keep=self.keep)
            try:
                write_repaired(fixed, watched(path, how, "repairing"), repair)
            except UserError as error:
                shown.append(f"[red]✗[/red] nothing was repaired: {_markup(str(error), 200)}")
            else:
                shown += _repaired(fixed, repair, table)
                facts |= {"repaired file": str(fixed), "rows in it": repair.rows, "left for a person": repair.left.errors}
                values["repaired"] = dict(repair.done)
                failed = repair.left.errors > 0
        elif fixed:
            shown.append("[yellow]⚠[/yellow] nothing was repaired: give kind=, so that it is known what the rows need")
        return Result(f"{place.name}: {'errors' if failed else 'sound'}", facts, values, shown, failed=failed)


def _begins_with_mark(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(3) == _BOM


def longest_view(tokenizer: Any, rows: list[Row], kind: Kind) -> list[int]:
    """Tokens of each row as the model sees it; of a preference pair those of the longer side."""
    owners, said = [], []
    for place, row in enumerate(rows):
        for view in tokens.views(row, kind):
            owners.append(place)
            said.append(tokens.rendered(tokenizer, view))
    found = [0] * len(rows)
    for place, length in zip(owners, tokens.lengths(tokenizer, said), strict=True):
        found[place] = max(found[place], length)
    return found


def summary(path: Path, encoding: str, report: Report, max_tokens: int) -> list[str]:
    """What a check found, a line each, as a person reads it."""
    findings = report.findings
    good, bad, hint = "[green]✓[/green]", "[red]✗[/red]", "[yellow]⚠[/yellow]"
    form = next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.endswith(ending)), path.suffix)
    unreadable = findings.counts["unreadable"]
    form = form.lstrip(".") + (f", {encoding}" if encoding else "")
    lines = [f"{bad if unreadable else good} format: {form}", f"{good} rows: {report.rows}"]
    if report.kind:
        missing = findings.counts["structure"] + findings.counts["mixed"]
        lines.append(f"{bad if missing else good} fields: {', '.join(_markup(each) for each in list(report.fields)[:20])}")
        means = [f"{each} {mean:.0f}" for each, mean in report.means.items()]
        if means:
            lines.append(f"{good} mean length: {means[0]} characters" + "".join(f", {each}" for each in means[1:]))
        if report.told:
            few = min(report.told["reference"] or report.told["label"], report.sound) < report.sound
            told = f"{report.told['reference']} of {report.sound} rows, labels in {report.told['label']}"
            needed = " (bleu, exact_match and others need one in each row that is asked)" if few else ""
            lines.append(f"{hint if few else good} references in {told}{needed}")
        if report.longest:
            lines.append(f"{good} longest row: {report.longest} tokens")
    for rule, times in ((rule, findings.counts[rule]) for rule in RULES if findings.counts[rule]):
        severity, said, _ = RULES[rule]
        said = f"{said} over {max_tokens} tokens" if rule == "too_long" else said
        sign = bad if severity is Severity.error else hint
        lines.append(f"{sign} {times} {_one(said) if times == 1 else said}{_first(findings, rule)}")
    return lines


def _first(findings: Findings, rule: str) -> str:
    lines = list(dict.fromkeys(one.line for one in findings.kept[rule] if one.line))[:5]
    more = "…" if findings.counts[rule] > len(lines) else ""
    return f" [dim](line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}{more})[/dim]" if lines else ""


def _one(said: str) -> str:
    """The words for many rows, for a single one."""
    head, _, rest = said.partition(" ")
    verb, space, after = rest.partition(" ")
    single = {"have": "has", "hold": "holds", "are": "is", "lack": "lacks", "repeat": "repeats"}.get(verb, verb)
    return f"{head.removesuffix('s')} {single}{space}{after}".rstrip()


def _grid(title: str, findings: Findings) -> Grid | None:
    found = findings.all()
    if not found:
        return None
    each = max(2, _SHOWN // len(findings.kept))
    few = [one for rule in findings.kept for one in findings.kept[rule][:each]]
    few.sort(key=lambda one: list(RULES).index(one.rule))
    more = (
        f" ({len(few)} of {findings.counts.total()}; all kept ones are in findings.json)"
        if len(few) < findings.counts.total()
        else ""
    )
    rows = [
        [one.severity.value, f"{one.file} {one.line}" if one.file else one.line or "", one.field, one.what, one.remedy]
        for one in few
    ]
    return Grid(title + more, ["severity", "line", "field", "what", "remedy"], rows)


def write_repaired(fixed: Path, found: Iterable[Any], repair: Repair) -> Repair:
    """Write mended rows to a new file, which appears whole or not at all.

    Raises:
        UserError: a file of that name is there.
    """
    handle, draft = tempfile.mkstemp(prefix=f".{fixed.name}.", dir=fixed.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 (a descriptor)
            for row in repair.mended(found):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        Path(draft).chmod(0o644)
        if fixed.exists():
            raise UserError("is there already", str(fixed), "move it away, or give another name=")
        Path(draft).rename(fixed)
    finally:
        Path(draft).unlink(missing_ok=True)
    return repair


def _repaired(fixed: Path, repair: Repair, before: Findings) -> list[Grid | str]:
    done = [[DONE[rule], times] for rule, times in sorted(repair.done.items()) if times]
    shown: list[Grid | str] = [
        Grid(f"repaired: {fixed.name}, {repair.rows} rows", ["what", "times"], done or [["nothing to repair", ""]])
    ]
    if grid := _grid("left for a person to mend", repair.left):
        shown.append(grid)
    looked = [f"{before.counts[rule]} {RULES[rule].summary}" for rule in LOOK if before.counts[rule]]
    if looked:
        shown.append(f"[yellow]⚠[/yellow] left as they are, for a person to look at: {'; '.join(looked)}")
    return shown


def _markup(text: str, most: int = 40) -> str:
    from rich.markup import escape

    return escape(text[:most])
