"""`op=report`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval, Work
from mlops_llm.eval.lang import Lang
from mlops_llm.record import Result, Run


class Form(Enum):
    """Form of a report."""

    pdf = "pdf"
    xlsx = "xlsx"
    json = "json"
    html = "html"


@component("op", "report")
@dataclass
class WriteReport:
    """Write the report of an evaluation (`run=`): summary, method, results, comparison, conclusion, sources."""

    format: list[Form] = field(default_factory=lambda: list(Form))
    """Forms of the report, several."""
    lang: Lang = Lang.zh
    """Language: zh or en."""
    samples: int = 50
    """Samples in PDF and HTML, the worst where there are more; Excel and JSON have all."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.format:
            raise UserError("names no form", "op.format", "name some: op.format=[pdf,xlsx,json,html]")
        if self.samples < 0:
            raise UserError(f"is {self.samples}", "op.samples", "give a number from 0")

    def prepare(self, request: Eval) -> Work:
        """Read what the record holds of the evaluation, and see that its forms can be made here."""
        from mlops_llm.eval.report import pdf, xlsx
        from mlops_llm.eval.report.chapters import report
        from mlops_llm.eval.report.gathered import reported
        from mlops_llm.tracking.store import connect

        if not request.run:
            raise UserError("names no run", "run", "name that of an evaluation: run=NAME")
        for form, check in ((Form.pdf, pdf.check), (Form.xlsx, xlsx.check)):
            if form in self.format:
                check()
        found = reported(connect(), request.run)
        about = report(found, self.lang)
        folder = Path(str(request.output or "."))

        def work(run: Run) -> Result:
            from mlops_llm.eval.report.writing import made, write

            names = dict.fromkeys(each.value for each in self.format)
            files = write(made(about, names, self.samples), folder)
            run.tags({"report.run": found["record"]["run"], "report.lang": self.lang.value})
            for file in files:
                run.artifact(file.name, file)
            table = {"of run": found["record"]["name"], "model": about.outcome.model, "dataset": about.outcome.dataset}
            table |= {file.suffix[1:]: f"{file} ({console.size(file.stat().st_size)})" for file in files}
            return Result(f"{about.outcome.title}: report", table, {"files": [str(file) for file in files]})

        return work
