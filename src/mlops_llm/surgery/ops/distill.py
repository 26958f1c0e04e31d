"""`op=distill`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Result
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.operation import Work


@component("op", "distill")
@dataclass
class DistillInto:
    """Teach a smaller model by a larger one: `models=[TEACHER,STUDENT]`. It is a training, which runs as a command of its own.

    The training is recorded as any other, and its best checkpoint is the new one.
    """

    temperature: float = 2.0
    """Both distributions are softened by it: the higher, the more the unlikely tokens count."""
    settings: Any = None
    """More settings of the training, by their names there: {trainer.max_steps: 100, peft: lora}."""
    dry_run: bool = False
    """Show the command and do nothing."""

    def __post_init__(self) -> None:
        """Check what is given."""
        if not 0 < self.temperature < math.inf:
            raise UserError(f"is {self.temperature:g}", "op.temperature", "give a number above 0, such as 2")

    def prepare(self, request: Surgery) -> Work | Result:
        """Check both models, and that they have one vocabulary."""
        from mlops_llm.surgery.distillation import distillation, shown, trained

        found = distillation(request, self.temperature, self.settings)
        return shown(found) if self.dry_run else lambda run: trained(found, run)
