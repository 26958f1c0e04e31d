"""`op=human_import`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.eval.config import Eval, Work


@component("op", "human_import")
@dataclass
class HumanImport:
    """Take back what people rated, and record it on the checkpoints and rows that the answers came from."""

    files: list[str] = field(default_factory=list)
    """Filled-in workbooks or CSV files of one evaluation."""
    drop_failed: bool = False
    """Leave out raters who failed the attention checks or contradict themselves."""
    leave_out: bool = False
    """Leave out rows and cells that cannot be taken, instead of refusing the files."""

    def home(self, request: Eval) -> str:
        """The project of the export: there the models are known."""
        if not self.files:
            raise UserError("names no file", "op.files", "name them: op.files=[rate-1.xlsx,rate-2.xlsx]")
        from mlops_llm.eval.people import imported

        return imported.home(Path(self.files[0]))

    def prepare(self, request: Eval) -> Work:
        """Read and check the files."""
        from mlops_llm.eval.people import imported

        ready = imported.ready([Path(each) for each in self.files], self.leave_out, self.drop_failed)
        return lambda run: imported.record(ready, request.save_outputs, run)
