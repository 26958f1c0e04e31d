"""`op=list`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result, Run
from mlops_llm.registry import listing
from mlops_llm.registry.config import Registry, Work

_NOTHING = "nothing is registered yet: op=promote name=NAME model=REF does, as name= in surgery and register_as= in trainings"


@component("op", "list")
@dataclass
class List:
    """Show versions: aliases, scores that the policy asks for, certificate, overlap, size, age, where they come from."""

    records: ClassVar[bool] = False
    rows: int = 20
    """Newest versions of each model to show, besides those that have an alias."""

    def __post_init__(self) -> None:
        """Check the number of lines."""
        if self.rows < 1:
            raise UserError(f"is {self.rows}", "op.rows", "give a whole number from 1")

    def prepare(self, request: Registry) -> Work:
        """Find the models."""
        from mlops_llm.tracking import registered
        from mlops_llm.tracking.store import connect, exists

        if not exists() and not request.name:
            return lambda run: Result("list", {}, {"versions": []}, shown=[_NOTHING])
        store = connect()
        versions = registered.versions(store, request.name or "", self.rows)

        def work(run: Run) -> Result:
            shown = listing.columns(versions, request.policy)
            lines = listing.lines(store, versions, shown)
            models = list(dict.fromkeys(each.model for each in versions))
            count = f"{len(versions)} version{'s' if len(versions) != 1 else ''}"
            title = f"{count} of {models[0]}" if len(models) == 1 else f"{count} of {len(models)} models"
            told: list[Grid | str] = [listing.grid(title, lines, shown, with_model=len(models) != 1)]
            if not versions:
                told = [_NOTHING]
            return Result("list", {}, {"versions": [each.values for each in lines]}, shown=told)

        return work
