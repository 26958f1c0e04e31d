"""`op=preview`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from mlops_llm import files
from mlops_llm.component import component
from mlops_llm.data import preview, tokens
from mlops_llm.data.config import Data, Work
from mlops_llm.data.formats import records
from mlops_llm.data.identity import digests
from mlops_llm.data.kinds import Kind, infer, of_rows, own
from mlops_llm.data.read import name
from mlops_llm.data.ref import locate
from mlops_llm.data.rows import Record
from mlops_llm.data.validate import HEAD
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result

QUICK = 100_000_000
"""Bytes up to which a preview also reads the whole file, for its digests."""


@component("op", "preview")
@dataclass
class Preview:
    """Show rows as a person reads them, and what the model sees of them: the templated text, trained tokens marked ⟦…⟧."""

    records: ClassVar[bool] = False
    rows: int = 5
    """Rows to show."""
    start: int = 0
    """Rows to leave out before them."""
    model: str = "tiny"
    """Model whose chat template and tokenizer are used."""
    max_tokens: int = 512
    """Tokens after which training would cut a row."""
    ids: bool = False
    """Also show the token ids."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for setting, value, least in (("rows", self.rows, 1), ("start", self.start, 0), ("max_tokens", self.max_tokens, 1)):
            if value < least:
                raise UserError(f"is {value}", f"op.{setting}", f"give at least {least}")

    def prepare(self, request: Data) -> Work:
        """Read the rows."""
        place = locate(request.wanted())
        path, request = place.path, replace(request, read=place.reading(request.read))
        found = list(islice(records(path, request.read), self.start, self.start + self.rows))
        if not found:
            raise UserError(f"has no {self.start + 1}. row", path.name, "lower op.start")
        rows = [record.row for record in found if record.row is not None]
        if not any(map(infer, rows)):
            rows += [record.row for record in islice(records(path, request.read), HEAD) if record.row is not None]
        kind = of_rows(rows, path.name, request.kind)
        tokenizer = tokens.tokenizer(self.model)
        shown: list[Grid | str] = []
        facts = []
        for number, record in enumerate(found, self.start + 1):
            lines, numbers = self._shown(record, number, kind, tokenizer)
            shown += lines
            facts += numbers
        columns = ["row", "", "tokens", "trained", "cut"]
        shown.append(Grid(f"tokens ({self.model}, at most {self.max_tokens})", columns, facts))
        table = {"kind": kind.name, "rows": f"{self.start + 1} to {self.start + len(found)}", "file": str(path)}
        values: dict[str, Any] = {"tokens": [dict(zip(columns, each, strict=True)) for each in facts]}
        if files.size(path) <= QUICK:
            values["digests"] = digests(path, request.read)
        result = Result(f"{name(path)}: preview", table, values, shown)
        return lambda run: result

    def _shown(self, record: Record, number: int, kind: Kind, tokenizer: Any) -> tuple[list[str], list[list[Any]]]:
        """A row's lines, and its numbers of tokens."""
        lines = [f"[bold]── row {number} (line {record.line}) ──[/bold]"]
        if record.row is None:
            return [*lines, preview.safe(f"cannot be read: {record.problem}; {record.remedy}")], []
        try:
            row = own(record.row, kind, "")
            lines.append(preview.marked(row, kind))
            seen = preview.seen(row, kind, tokenizer, self.max_tokens)
        except UserError as error:
            return [*lines, preview.safe(f"cannot be used as {kind.name}: {error}")], []
        facts = []
        for text in seen:
            lines.append(f"[bold]what the model sees{f' ({text.name})' if text.name else ''}:[/bold]\n{preview.painted(text)}")
            if self.ids:
                lines.append(f"[dim]ids: {' '.join(map(str, text.ids))}[/dim]")
            facts.append([number, text.name, len(text.ids), text.trained, text.cut])
        return lines, facts
