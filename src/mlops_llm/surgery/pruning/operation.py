"""What the operations that prune have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.operation import Work

if TYPE_CHECKING:
    from mlops_llm.surgery.planning import Planned
    from mlops_llm.surgery.pruning.pruning import Pruning


class Prunes(ABC):
    """An operation that says what goes of a model; the rest is the same for all."""

    @abstractmethod
    def pruning(self, request: Surgery) -> Pruning:
        """What goes, and how it is chosen.

        Raises:
            UserError: the model is none that can be pruned so, or the rows do not do.
        """
        ...

    def plan(self, request: Surgery) -> Planned:
        """The plan, without the rows being recorded."""
        return self.pruning(request).planned()

    def prepare(self, request: Surgery) -> Work | Result:
        """Check the model, the ratio and the rows."""
        return self.pruning(request).work()
