"""Which model answers now, and how another takes its place without a request being lost."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.inference.server import Server


@dataclass(eq=False)
class Standing:
    """A model that runs in a process of its own."""

    server: Server
    ref: str
    version: str
    """Of the registered model; empty where it is none."""
    weights: str
    """Digest."""
    stack: ExitStack
    """Ends the process."""
    in_work: int = 0
    """Requests that it has not answered yet."""
    facts: dict[str, Any] = field(default_factory=dict)


class Post:
    """The place of the model that answers. Several threads may ask."""

    def __init__(self) -> None:
        """Empty."""
        self._changed = threading.Condition()
        self._now: Standing | None = None
        self.answered = self.failed = 0

    @property
    def now(self) -> Standing | None:
        """Who stands here."""
        return self._now

    def take(self) -> Standing | None:
        """Who answers a request; `give_back` must follow. None where nobody does."""
        with self._changed:
            if self._now:
                self._now.in_work += 1
            return self._now

    def give_back(self, standing: Standing, *, well: bool) -> None:
        """The request was answered, or failed."""
        with self._changed:
            standing.in_work -= 1
            self.answered += well
            self.failed += not well
            self._changed.notify_all()

    def put(self, standing: Standing | None) -> Standing | None:
        """Have another answer from now on; return who did until now."""
        with self._changed:
            before, self._now = self._now, standing
            return before

    def drain(self, standing: Standing, patience: float) -> int:
        """Wait until a model that was relieved has answered all it took on; return how many requests it has left.

        Args:
            standing: the model.
            patience: seconds.
        """
        until = time.monotonic() + patience
        with self._changed:
            self._changed.wait_for(lambda: not standing.in_work, max(0.0, until - time.monotonic()))
            return standing.in_work
