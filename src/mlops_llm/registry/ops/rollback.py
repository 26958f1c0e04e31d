"""`op=rollback`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.registry.config import Registry, Work


@component("op", "rollback")
@dataclass
class Rollback:
    """Make the champion of before the champion again; what was and why stays in the history."""

    records: ClassVar[bool] = True
    reason: str = ""
    """Why, for those who read the history."""

    def prepare(self, request: Registry) -> Work:
        """See that there is a champion of before."""
        from mlops_llm.registry.rollback import rollback

        if not self.reason.strip():
            raise UserError("names no reason", "op.reason", "give op.reason='…'")
        if request.version or request.model:
            remedy = "leave it out; to make a certain version the champion: op=promote version=N op.force=true op.reason='…'"
            where = "version" if request.version else "model"
            raise UserError("is not for a rollback, which leads to the champion of before", where, remedy)
        return rollback(request, self.reason.strip()).work
