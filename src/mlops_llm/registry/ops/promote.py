"""`op=promote`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.registry.config import Registry, Work


@component("op", "promote")
@dataclass
class Promote:
    """Make a version the champion if the policy allows it; the decision and its evidence stay on the version and in a run."""

    records: ClassVar[bool] = True
    evaluate: bool = False
    """Compute evidence that the record lacks: evaluations of the version and of the champion, each in a run of its own."""
    force: bool = False
    """Make it the champion whatever the policy says; op.reason must say why."""
    reason: str = ""
    """Why, for those who read the history."""

    def __post_init__(self) -> None:
        """See that force has its reason."""
        if self.force and not self.reason.strip():
            raise UserError("overrides the policy, and nothing says why", "op.force", "give op.reason='…'")

    def prepare(self, request: Registry) -> Work:
        """Find version and champion, and see that the evidence is there or can be computed."""
        from mlops_llm.registry.preparing import promotion

        return promotion(request, evaluate=self.evaluate, force=self.force, reason=self.reason.strip()).work
