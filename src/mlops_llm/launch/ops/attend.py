"""`op=attend`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch import elsewhere, sent
from mlops_llm.record import Result


@component("op", "attend")
@dataclass
class Attend:
    """Come back to a job that runs elsewhere: show what it prints until it ends, and bring back what it made."""

    job: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Its run's name; null is the last that was sent."""

    def carry_out(self) -> Result:
        """Stay until it ends; this command ends as the job's did, with 1 where that is not known."""
        jobs = sent.jobs()
        if not self.job and not jobs:
            raise UserError("no job was sent elsewhere from here", "op.job", "see op=list")
        job = sent.required(self.job) if self.job else jobs[-1]
        return Result("attend", {}, {}, code=elsewhere.attend(job))
