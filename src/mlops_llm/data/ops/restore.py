"""`op=restore`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.data import ref
from mlops_llm.data.config import Data, Work
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run


@component("op", "restore")
@dataclass
class Restore:
    """Put a removed dataset back on the list."""

    records: ClassVar[bool] = True

    def prepare(self, request: Data) -> Work:
        """See that it was removed."""
        from mlops_llm.tracking import datasets
        from mlops_llm.tracking.store import connect

        known = ref.registered(request.wanted())
        if known.listed:
            raise UserError("is on the list", known.name, "there is nothing to restore")

        def work(run: Run) -> Result:
            datasets.list_again(connect(), known.name, True)
            table = {"on the list again": known.name, "versions": ", ".join(each.label for each in known.versions)}
            return Result(f"{known.name}: restored", table, {"name": known.name, "digests": known.digests})

        return work
