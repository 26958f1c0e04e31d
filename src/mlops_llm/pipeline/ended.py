"""How a stage ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mlops_llm.pipeline.flow import Step
from mlops_llm.pipeline.made import Made


class State(Enum):
    """How a stage ended."""

    done = "done"
    there = "there already"
    left_out = "left out"
    failed = "failed"
    no = "said no"
    """Its work was done, and says no: a check that found errors."""
    refused = "refused"
    """The same of one that decides, such as a policy: what needs it is not wanted."""
    lost = "not begun"
    over = "not wanted"

    @property
    def good(self) -> bool:
        """Whether stages that need it can be done."""
        return self in (State.done, State.there, State.left_out)

    @property
    def fails(self) -> bool:
        """Whether the pipeline fails by it."""
        return self in (State.failed, State.no, State.lost)


@dataclass(frozen=True)
class Ended:
    """A stage and its end."""

    step: Step
    state: State
    made: Made | None = None
    """Of a stage that ended well."""
    seconds: float = 0.0
    reason: str = ""
    """Why it failed, was left out, or was done again."""
    command: str = ""
    """By which it is done alone."""
    log: Path | None = None
    code: int = 0
    """Exit code of its last start."""

    @property
    def ref(self) -> str:
        """What it made, for a person: a model, rows, a folder for servers, or nothing."""
        if not self.made or not self.made.run:
            return ""
        found = (self.made.result.get("folder") if self.step.words.room == "registry" else "") or self.made.result.get("ref")
        if found:
            return str(found)
        if best := self.made.run.tags.get("best.checkpoint"):
            return f"runs:/{self.made.run.name}/{best}"
        written = self.made.result.get("written")
        return f"{written['name']}@{written['version']}" if isinstance(written, dict) and "version" in written else ""

    @property
    def told(self) -> str:
        """The number that its run is compared by, with its name; empty where there is none."""
        tags = self.made.run.tags if self.made and self.made.run else {}
        return f"{tags['best.metric']} {float(tags['best.score']):.4g}" if "best.score" in tags else ""
