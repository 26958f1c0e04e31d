"""`op=sample`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.data.kinds import of_rows
from mlops_llm.data.split import drawn_order
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run


@component("op", "sample")
@dataclass
class Sample:
    """Draw rows at random into NAME_sample; the same seed draws the same rows, in whatever order the file holds them."""

    records: ClassVar[bool] = True
    rows: int = 20
    """How many."""
    seed: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Seed of the draw; null takes the command's own seed=."""

    def __post_init__(self) -> None:
        """Check the number."""
        if self.rows < 1:
            raise UserError(f"is {self.rows}", "op.rows", "give a whole number from 1")

    def prepare(self, request: Data) -> Work:
        """Read the rows."""
        source = ref.open_dataset(request.wanted(), request.read)
        if self.rows > len(source.rows):
            raise UserError(f"is {self.rows}, there are {len(source.rows)} rows", "op.rows", "give a smaller number")
        seed = request.seed if self.seed is None else self.seed
        kind = of_rows(source.rows, source.path.name, request.kind)
        target = versions.target(request.name or f"{source.name}_sample", kind)
        drawn = sorted(drawn_order(source.rows, seed)[: self.rows])

        def work(run: Run) -> Result:
            run.input(source.as_input())
            how = f"{self.rows} rows of {versions.reference(source)}, seed={seed}"
            made = versions.derive(target, source, [source.rows[place] for place in drawn], how)
            table = {"original": len(source.rows), "drawn": self.rows, "written": f"{made.name}@{made.label}"}
            return Result(
                f"{made.name}: drawn",
                table,
                {"path": str(made.path), "digests": dict(made.digests), "lines": [source.lines[place] for place in drawn]},
            )

        return work
