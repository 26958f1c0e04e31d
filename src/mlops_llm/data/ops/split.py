"""`op=split`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.data.kinds import of_rows
from mlops_llm.data.split import hold_out
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run


@component("op", "split")
@dataclass
class Split:
    """Split a dataset into NAME_train and NAME_validation; a row falls on the same side in every file, order and run."""

    records: ClassVar[bool] = True
    validation: float = 0.1
    """Share of the rows that is held out, met on average: each row's digest decides, and equal rows stay together."""

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 < self.validation < 1:
            raise UserError(f"is {self.validation}", "op.validation", "give a share between 0 and 1")

    def prepare(self, request: Data) -> Work:
        """Read the rows and see that both sides get some."""
        source = ref.open_dataset(request.wanted(), request.read)
        sides = hold_out(source, self.validation)
        if not all(sides):
            raise UserError("leaves one side without a row", "op.validation", f"there are {len(source.rows)} rows")
        kind = of_rows(source.rows, source.path.name, request.kind)
        stem = request.name or source.name
        targets = [versions.target(f"{stem}_{side}", kind) for side in ("train", "validation")]

        def work(run: Run) -> Result:
            run.input(source.as_input())
            table, made = {"original": len(source.rows)}, {}
            for side, target, places in zip(("train", "validation"), targets, sides, strict=True):
                how = f"{side} side of {versions.reference(source)}, op.validation={self.validation}"
                derived = versions.derive(target, source, [source.rows[place] for place in places], how)
                table[f"{derived.name}@{derived.label}"] = len(places)
                made[side] = str(derived.path)
            return Result(f"{stem}: split", table, {"paths": made, "digests": source.digests})

        return work
