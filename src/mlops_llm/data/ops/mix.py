"""`op=mix`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.data.kinds import of_rows, own
from mlops_llm.data.read import Row
from mlops_llm.data.split import drawn_order
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run

ORIGIN = "origin"
"""Field in which a mixed row says where it comes from."""


@component("op", "mix")
@dataclass
class Mix:
    """Mix datasets of one kind in given shares into the dataset `name`; each row keeps its origin."""

    records: ClassVar[bool] = True
    datasets: list[str] = field(default_factory=list)
    """Refs of the datasets."""
    weights: Optional[list[float]] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Share of the mixed rows that comes from each, summing to 1; null takes every row of all."""
    rows: Optional[int] = None  # noqa: UP045
    """Rows of the mixture; null takes as many as the shares allow without repeating a row."""
    seed: Optional[int] = None  # noqa: UP045
    """Seed of what is taken and of its order; null takes the command's own seed=."""

    def __post_init__(self) -> None:
        """Check the number of rows."""
        if self.rows is not None and self.rows < 1:
            raise UserError(f"is {self.rows}", "op.rows", "give a whole number from 1")

    def prepare(self, request: Data) -> Work:
        """Read all datasets and see that the shares can be met."""
        if len(self.datasets) < 2:
            raise UserError("names fewer than two datasets", "op.datasets", "write op.datasets=[A,B] op.weights=[0.7,0.3]")
        if not request.name:
            raise UserError("names no result", "name", "give one: name=NEW_NAME")
        sources = [ref.open_dataset(each, request.read) for each in self.datasets]
        kinds = {of_rows(source.rows, source.name, request.kind): source.name for source in sources}
        if len(kinds) > 1:
            said = ", ".join(f"{name} is {kind.name}" for kind, name in kinds.items())
            raise UserError(f"are of several kinds ({said})", "op.datasets", "mix datasets of one kind")
        (kind,) = kinds
        target = versions.target(request.name, kind)
        seed = request.seed if self.seed is None else self.seed
        counts = self._counts([len(source.rows) for source in sources])

        def work(run: Run) -> Result:
            mixed: list[Row] = []
            for source, count in zip(sources, counts, strict=True):
                run.input(source.as_input())
                places = sorted(drawn_order(source.rows, seed)[:count])
                origin = versions.reference(source)
                mixed += [_with_origin(own(source.rows[place], kind, source.where(place)), origin) for place in places]
            mixed = [mixed[place] for place in drawn_order(mixed, seed)]
            shares = ", ".join(
                f"{count} of {versions.reference(source)}" for source, count in zip(sources, counts, strict=True)
            )
            more = [versions.reference(source) for source in sources[1:]]
            made = versions.derive(target, sources[0], mixed, f"mixed from {shares}, seed={seed}", more)
            table: dict[str, object] = {
                f"from {versions.reference(source)}": f"{count} of {len(source.rows)} rows ({count / len(mixed):.1%})"
                for source, count in zip(sources, counts, strict=True)
            }
            table |= {"mixed": len(mixed), "written": f"{made.name}@{made.label}"}
            return Result(
                f"{made.name}: mixed", table, {"path": str(made.path), "digests": dict(made.digests), "counts": counts}
            )

        return work

    def _counts(self, there: list[int]) -> list[int]:
        """Rows to take from each."""
        if self.weights is None:
            if self.rows is not None:
                raise UserError("needs shares", "op.rows", "give op.weights too")
            return there
        if len(self.weights) != len(there) or any(weight <= 0 for weight in self.weights):
            raise UserError(f"are {self.weights} for {len(there)} datasets", "op.weights", "give one share above 0 for each")
        total = sum(self.weights)
        if abs(total - 1) > 1e-6:
            normal = ",".join(f"{weight / total:.4g}" for weight in self.weights)
            raise UserError(f"sum to {total:.4g}, not 1", "op.weights", f"write op.weights=[{normal}]")
        most = int(min(count / weight for count, weight in zip(there, self.weights, strict=True)) + 1e-9)
        wanted = self.rows if self.rows is not None else most
        if wanted > most:
            raise UserError(
                f"is {wanted}; without repeating rows these shares allow {most}", "op.rows", "lower it or change op.weights"
            )
        counts = [int(wanted * weight + 1e-9) for weight in self.weights]
        rests = sorted(range(len(counts)), key=lambda place: counts[place] - wanted * self.weights[place])  # type: ignore[index]
        for place in rests[: wanted - sum(counts)]:
            counts[place] += 1
        if not all(counts):
            raise UserError("leaves a dataset without a row", "op.weights", "raise its share or op.rows")
        return counts


def _with_origin(row: Row, origin: str) -> Row:
    """The row with where it comes from; an origin that it has already stays beside it."""
    before = {f"{ORIGIN}_before": row[ORIGIN]} if ORIGIN in row else {}
    return {**row, **before, ORIGIN: origin}
