"""`op=edit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run


@component("op", "edit")
@dataclass
class Edit:
    """Give a registered dataset another name (`name=`) or description; its old names go on standing for it."""

    records: ClassVar[bool] = True
    description: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """New description; null leaves it."""

    def prepare(self, request: Data) -> Work:
        """See what is to change, and that the new name is free."""
        from mlops_llm.tracking import datasets
        from mlops_llm.tracking.store import connect

        known = ref.registered(request.wanted())
        new = datasets.check_name(request.name) if request.name else known.name
        if new == known.name and self.description is None:
            raise UserError("changes nothing", "op=edit", "give name= or op.description=")
        there = versions.working_file(known.name)
        if new != known.name and versions.working_file(new):
            raise UserError(f"a file of the name '{new}' is in datasets/ already", "name", "choose another")
        if new != known.name:
            versions.refuse_shadow(new)
        store = connect()

        def work(run: Run) -> Result:
            if self.description is not None:
                datasets.describe(store, known.name, self.description)
            moved = None
            if new != known.name:
                datasets.rename(store, known.name, new)
                if there:
                    moved = there.rename(there.with_name(new + there.name.removeprefix(known.name)))
            table = {
                "name": f"{known.name} -> {new} (the old name still resolves)" if new != known.name else known.name,
                "description": known.description if self.description is None else self.description,
                "file": f"datasets/{moved.name}" if moved else None,
            }
            return Result(
                f"{new}: edited", {key: value for key, value in table.items() if value}, {"name": new, "digests": known.digests}
            )

        return work
