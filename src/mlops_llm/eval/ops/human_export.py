"""`op=human_export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval, Work
from mlops_llm.eval.lang import Lang


@component("op", "human_export")
@dataclass
class HumanExport:
    """Write workbooks in which people rate answers without knowing whose they are."""

    file: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Workbook (.xlsx) or .csv to write; several raters get NAME-1, NAME-2. Null is rate.xlsx in the run's folder."""
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
        taken = {"id", "prompt", "answer", "comment", "overall"} & {*names}
        if taken:
            raise UserError(f"names {min(taken)}, which is another column", "op.dimensions", "choose another word")

    def prepare(self, request: Eval) -> Work:
        """Check models, rows and files."""
        from mlops_llm.eval.people import export

        file = Path(self.file) if self.file else Path(str(request.output or ".")) / "rate.xlsx"
        dimensions = tuple(each.strip() for each in self.dimensions)
        asked = (self.raters, dimensions, self.lang, self.checks, self.repeats)
        wanted = export.Wanted(file, *asked, request.save_outputs)
        export.refuse(wanted, request.models or [request.model])
        plans = export.plans(request)
        return lambda run: export.export(plans, wanted, run)
