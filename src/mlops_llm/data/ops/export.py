"""`op=export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.data import export, ref
from mlops_llm.data.config import Data, Work
from mlops_llm.data.kinds import of_rows
from mlops_llm.errors import UserError
from mlops_llm.files import expanded
from mlops_llm.record import Result, Run


@component("op", "export")
@dataclass
class Export:
    """Write a dataset to a file (`output=`) for another program; adding that file again gives the same rows."""

    records: ClassVar[bool] = False
    form: export.Form = export.Form.auto
    """Form of the file; auto goes by its ending. alpaca and sharegpt are for conversations."""
    overwrite: bool = False
    """Write over a file that is there."""

    def prepare(self, request: Data) -> Work:
        """Read the rows and see where they go."""
        if not request.output:
            raise UserError("names no file", "output", "give one: output=FILE.parquet")
        path = expanded(request.output)
        form = export.form_of(self.form, path)
        if path.exists() and not self.overwrite:
            raise UserError("is there already", str(path), "choose another, or set op.overwrite=true")
        source = ref.open_dataset(request.wanted(), request.read)
        kind = of_rows(source.rows, source.name, request.kind)

        def work(run: Run) -> Result:
            written = export.write(source, kind, form, path)
            table = {"rows": len(source.rows), "form": form.name, "file": f"{written} ({console.size(written.stat().st_size)})"}
            digests = source.digests
            return Result(f"{source.name}: exported", table, {"path": str(written.absolute()), "digests": digests})

        return work
