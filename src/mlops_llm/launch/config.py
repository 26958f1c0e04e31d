"""Settings of the queue's own commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Protocol

from mlops_llm.record import Result

PACKAGES = ("mlops_llm.launch.ops",)


class Operation(Protocol):
    """An operation on the queue: a component of the group `op`."""

    def carry_out(self) -> Result:
        """Do it; nothing is recorded."""
        ...


@dataclass
class Launch:
    """Work through the commands that launch=queue put into this machine's queue; list, watch and cancel them."""

    op: Any = "???"
    """What to do."""
    run_name: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Name of the folder of result.json, outputs/RUN_NAME; null takes launch and four hex digits."""
