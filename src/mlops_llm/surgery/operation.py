"""What an operation of the stage is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mlops_llm.record import Result, Run
from mlops_llm.surgery.config import Surgery

Work = Callable[[Run], Result]
"""What is left to do once a request is known to be sound."""


class Operation(Protocol):
    """An operation of the stage: a component of the group `op`."""

    def prepare(self, request: Surgery) -> Work | Result:
        """Check the request and read what is cheap to read.

        A `UserError` from here leaves no run. A `Result` is shown without a run: the plan, where `op.dry_run=true` asks for it.
        """
        ...
