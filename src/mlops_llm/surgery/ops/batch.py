"""`op=batch`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.operation import Work


@component("op", "batch")
@dataclass
class RunBatch:
    """Carry out the operations of a file, each in a run of its own; given again, only what is missing is done.

    A job has the settings of the command line by the same names, and `jobs:/NAME` stands for what another job makes. What a
    job does not give is as the command says.
    """

    file: str = ""
    """YAML with `jobs:`, and beneath it a name and the settings of each."""
    dry_run: bool = False
    """Check the file, show the plan and do nothing."""

    def models(self) -> list[str]:
        """Refs of models from elsewhere that its jobs take, as far as they are there; others are refused with their line."""
        from pathlib import Path

        from mlops_llm.models.ref import resolve
        from mlops_llm.surgery.batch.file import read

        found = list[str]()
        for each in (ref for job in read(Path(self.file)) for ref in job.models) if self.file else ():
            with contextlib.suppress(UserError):
                found.append(resolve(each).ref)
        return found

    def variables(self) -> set[str]:
        """Environment variables that its jobs name; none where the file is on another machine."""
        from mlops_llm.files import expanded
        from mlops_llm.surgery.batch.file import read

        file = expanded(self.file)
        return {name for job in read(file) for name in job.variables} if file.is_file() else set()

    def prepare(self, request: Surgery) -> Work | Result:
        """Check the whole file before anything begins."""
        from mlops_llm.surgery.batch.running import carried_out, prepared

        if not self.file:
            raise UserError("names no file", "op.file", "give one: op.file=jobs.yaml")
        batch = prepared(self.file, request, dry_run=self.dry_run)
        return batch if isinstance(batch, Result) else lambda run: carried_out(batch, run)
