"""`op=human_export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval, Work
from mlops_llm.eval.lang import Lang


class Form(Enum):
    """Form of a rater's file."""

    xlsx = "xlsx"
    csv = "csv"


@component("op", "human_export")
@dataclass
class HumanExport:
    """Write workbooks in which people rate answers without knowing whose they are."""

    file: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Workbook (.xlsx) or .csv to write; several raters get NAME-1, NAME-2. Null is rate.xlsx in the run's folder."""
    format: list[Form] = field(default_factory=list)
    """Forms of each rater's file, for raters to choose from: op.format=[xlsx,csv]. None is what the file's name ends in."""
    raters: int = 1
    """Files, one for each person, each in an order of its own."""
    dimensions: list[str] = field(default_factory=lambda: ["accuracy", "relevance", "fluency", "professionalism"])
    """What is rated, 1 to 5 each."""
    lang: Lang = Lang.zh
    """Language of the workbook: zh or en."""
    checks: int = 2
    """Rows that only show whether a rater reads them; of few answers fewer."""
    repeats: int = 3
    """Answers that are shown twice, so that contradictions come out; of few answers fewer."""

    def __post_init__(self) -> None:
        """Check the ranges and the dimensions."""
        for name, least in (("raters", 1), ("checks", 0), ("repeats", 0)):
            if getattr(self, name) < least:
                raise UserError(f"is {getattr(self, name)}", f"op.{name}", f"give a whole number from {least}")
        names = [each.strip().casefold() for each in self.dimensions]
        if not names or not all(names) or len({*names}) < len(names):
            raise UserError("names nothing, or one thing twice", "op.dimensions", "name each once: op.dimensions=[accuracy]")
        from mlops_llm.eval.people.words import FACTS, columns, plain

        fixed = {*FACTS, "overall", *columns(())}
        taken = next((each for each in names if each in fixed or plain(each) in fixed), None)
        if taken:
            raise UserError(f"names {taken}, which is another column", "op.dimensions", "choose another word")

    def prepare(self, request: Eval) -> Work:
        """Check models, rows and files."""
        from mlops_llm.eval.people import export

        given = next((name for name in ("metric", "judge", "benchmark") if getattr(request, name)), None)
        if given:
            raise UserError("is given, but people rate these answers", given, "leave it out; what they rate is op.dimensions")
        file = Path(self.file) if self.file else Path(str(request.output or ".")) / "rate.xlsx"
        dimensions = tuple(each.strip() for each in self.dimensions)
        asked = (self.raters, dimensions, self.lang, self.checks, self.repeats)
        wanted = export.Wanted(file, *asked, request.save_outputs, tuple(dict.fromkeys(each.value for each in self.format)))
        export.refuse(wanted, request.models or [request.model])
        plans = export.plans(request)
        return lambda run: export.export(plans, wanted, run)
