"""The server's watch: a process that ended is started again, and an alias that moved is followed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError, first_line
from mlops_llm.models.ref import Place
from mlops_llm.registry.serving.standing import Post, Standing
from mlops_llm.registry.serving.starting import Ready, Starting

PAUSE = 0.5
"""Seconds between two looks at the process."""
_AGAIN = (0.0, 5.0, 30.0)
"""Seconds before each attempt to start a process that ended; after the last one the server gives up."""
_WELL = 600.0
"""Seconds that a process must have run for its end to count as the first one."""


@dataclass(frozen=True)
class Target:
    """What an alias points to."""

    version: str
    find: Callable[[], Place]
    """Raises UserError where the model's files are gone."""


class Watch:
    """Looks after the model that answers, in a thread of its own."""

    def __init__(
        self, post: Post, starting: Starting, ready: Ready, target: Callable[[], Target] | None, every: float, drain: float
    ) -> None:
        """Begin with a model that answers.

        Args:
            post: where it stands.
            starting: starts others.
            ready: the model.
            target: says what the alias points to; None where none is followed. Raises UserError where it points nowhere.
            every: seconds between two looks at the alias.
            drain: seconds that a model that was relieved has for what it took on.
        """
        self._post, self._starting, self.ready = post, starting, ready
        self._target, self._every, self._drain = target, every, drain
        self._ends: list[float] = []
        self._relief: threading.Thread | None = None
        self._refused = self._told = ""
        self.events: list[dict[str, Any]] = []
        self.swaps = self.restarts = 0
        self.tell: Callable[[Ready], None] = _nobody
        """Called with each model that takes over."""
        self.failure: UserError | None = None
        """Why the server ends, where the model cannot be started any more."""

    def start(self) -> None:
        """Have the model answer."""
        self._stand(self.ready)

    def run(self, over: threading.Event) -> None:
        """Watch until `over` is set; sets it where nothing answers any more."""
        looked = time.monotonic()
        while not over.wait(PAUSE):
            try:
                self.ready.standing.server.check()
            except UserError as error:
                if not self._restarted(error, over):
                    over.set()
                    return
            if self._target and time.monotonic() - looked >= self._every and not self._is_relieving:
                self._follow(self._target, over)
                looked = time.monotonic()

    def finish(self) -> None:
        """Wait until a model that was relieved has ended; call it where nobody asks any more."""
        if self._relief:
            self._relief.join()

    @property
    def _is_relieving(self) -> bool:
        """Whether a model that was relieved still answers: a third one beside it might find no memory."""
        return bool(self._relief and self._relief.is_alive())

    def note(self, what: str, **facts: Any) -> None:
        """Keep what happened."""
        self.events.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), "what": what, **facts})

    def _restarted(self, error: Exception, over: threading.Event) -> bool:
        """Start a process again that ended; whether that went well."""
        old = self.ready.standing
        self._post.put(None)
        self.note("ended", version=old.version, why=first_line(error))
        console.warn(f"{first_line(error)}; starting it again")
        now = time.monotonic()
        self._ends = [each for each in self._ends if now - each < _WELL] + [now]
        old.stack.close()
        while len(self._ends) <= len(_AGAIN):
            if over.wait(_AGAIN[len(self._ends) - 1]):
                return True
            try:
                self._stand(self._starting.again(self.ready))
            except Exception as failure:
                self._ends.append(time.monotonic())
                error = failure
                console.warn(f"it does not start: {first_line(failure)}")
                continue
            self.restarts += 1
            return True
        self.failure = UserError(f"ended {len(self._ends)} times: {first_line(error)}", old.ref, "see what it said above")
        return False

    def _follow(self, target: Callable[[], Target], over: threading.Event) -> None:
        """Have the alias's model answer, if it is another one now."""
        old = self.ready.standing
        try:
            found = target()
        except UserError as error:
            self._say_once(f"the alias cannot be followed: {first_line(error)}; version {old.version} stays")
            return
        except Exception as error:  # the record's server is away: what answers goes on
            self._say_once(f"the record cannot be read ({first_line(error)}); version {old.version} stays")
            return
        self._told = ""
        if found.version == old.version:
            self._refused = ""
        if found.version in (old.version, self._refused):
            return
        console.say(f"the alias points to version {found.version} now")
        try:
            ready = self._starting.start(found.find(), found.version)
        except Exception as error:  # whatever is wrong with a new model, the old one goes on
            self._refused = found.version
            self.note("refused", version=found.version, why=first_line(error))
            console.warn(f"version {found.version} stays out: {first_line(error)}; version {old.version} goes on answering")
            return
        if over.is_set():
            ready.standing.stack.close()
            return
        self._refused = ""
        self.swaps += 1
        self._stand(ready)
        console.say(f"version {found.version} answers now: {ready.proof.why}")
        self._relief = threading.Thread(target=self._end, args=[old], name="relief", daemon=True)
        self._relief.start()

    def _end(self, old: Standing) -> None:
        """End a model that was relieved, once it has answered what it took on."""
        left = self._post.drain(old, self._drain)
        if left:
            console.warn(f"version {old.version} is ended with {left} requests that took longer than {self._drain:g} s")
            self.note("cut off", version=old.version, requests=left)
        old.stack.close()

    def _stand(self, ready: Ready) -> None:
        self.ready = ready
        self._post.put(ready.standing)
        self.note("answers", version=ready.standing.version, weights=ready.standing.weights, proof=ready.proof.why)
        self.tell(ready)

    def _say_once(self, line: str) -> None:
        if line != self._told:
            console.warn(line)
            self._told = line


def _nobody(ready: Ready) -> None:
    """Nobody listens."""
