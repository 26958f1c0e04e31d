"""`hook=command`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from math import isfinite

from mlops_llm.component import component
from mlops_llm.endpoint import TransientError, pause_before
from mlops_llm.errors import UserError, first_line
from mlops_llm.registry.hook import Answered, Changed
from mlops_llm.tracking.secrets import mask

_SHOWN = 300


@component("hook", "command")
@dataclass
class Command:
    """Runs a command, which reads the change as JSON; REGISTRY_MODEL, REGISTRY_VERSION and REGISTRY_EVENT are variables."""

    run: str = ""
    """The command with its words, without a shell: "./deploy.sh --now"; a shell is named: "sh -c '…'"."""
    timeout: float = 60.0
    """Seconds of one attempt."""
    tries: int = 3
    """Attempts at most, with growing pauses between them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.run in ("True", "False"):  # what OmegaConf makes of the words, which are commands of any system
            self.run = self.run.lower()
        if not (isfinite(self.timeout) and self.timeout > 0):
            raise UserError(f"is {self.timeout}", "hook.command.timeout", "give seconds above 0")
        if self.tries < 1:
            raise UserError(f"is {self.tries}", "hook.command.tries", "give a whole number from 1")

    def check(self) -> None:
        """See that there is such a command.

        Raises:
            UserError: there is none.
        """
        words = self._words()
        if shutil.which(words[0]) is None:
            raise UserError(f"there is no command '{words[0]}'", "hook.command.run", "give its path")

    def tell(self, changed: Changed) -> Answered:
        """Run it until it ends with 0."""
        said = ""
        for attempt in range(1, self.tries + 1):
            passed, said = self._once(changed)
            if passed or attempt == self.tries:
                return Answered(passed, attempt, said)
            time.sleep(pause_before(attempt - 1, TransientError(said)))
        raise AssertionError

    def _once(self, changed: Changed) -> tuple[bool, str]:
        told = {"MODEL": changed.model, "VERSION": str(changed.version), "EVENT": changed.event}
        environment = os.environ | {f"REGISTRY_{name}": value for name, value in told.items()}
        try:
            done = subprocess.run(
                self._words(),
                input=json.dumps(asdict(changed), ensure_ascii=False),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, f"did not end within {self.timeout:g} s"
        except OSError as error:
            return False, first_line(error)
        said = mask(" ".join((done.stderr if done.returncode else done.stdout).split()))[-_SHOWN:]
        return done.returncode == 0, f"exit code {done.returncode}" + (f": {said}" if said else "")

    def _words(self) -> list[str]:
        try:
            words = shlex.split(self.run)
        except ValueError as error:
            raise UserError(f"cannot be read ({error})", "hook.command.run", "close its quotes") from error
        if not words:
            raise UserError("is empty", "hook.command.run", "give the command: hook.command.run=./deploy.sh")
        return words
