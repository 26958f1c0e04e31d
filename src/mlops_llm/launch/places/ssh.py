"""`launch=ssh`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.launch import process, sent
from mlops_llm.launch.elsewhere import DETACHED, Elsewhere, Look, LostError, attend
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Command
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.ssh import begin, returned, route, start
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.launch.ssh.returned import Checkpoints
from mlops_llm.launch.ssh.route import Tracking
from mlops_llm.tracking import queued
from mlops_llm.tracking.refusals import AwayError
from mlops_llm.tracking.store import connect_to

_LOOK = 0.5


@component("launch", "ssh")
@dataclass
class OverSsh(Elsewhere):
    """Run the command on a machine that ssh reaches, and bring back what it makes."""

    host: str = "???"
    """The machine, as `ssh HOST` knows it: a name of ~/.ssh/config, or USER@HOST."""
    folder: str = "mlops_llm"
    """Folder there of all that is sent and made; relative to the home folder."""
    python: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Its Python with the packages; null is .venv/bin/python in the folder, else python3."""
    checkpoints: Checkpoints = Checkpoints.best
    """Which checkpoints come back: the best (of a run that has none the last), all, or none."""
    tracking: Tracking = Tracking.auto
    """How it reaches the record: tunnel is through this machine, direct by the record's own address; auto finds out."""
    config: Optional[str] = None  # noqa: UP045
    """ssh's configuration file; null is yours."""

    def begin(self, command: Command) -> dict[str, str]:
        """Send what the command needs and is not there yet, and start it."""
        return begin.begin(self._to, command, self.folder, self.python or "", self.tracking)

    def look(self, job: Sent) -> Look:
        """How its process is."""
        return start.look(self._to, job.handle["job"]) if job.handle else Look(State.waiting, None, "is being sent")

    def output(self, job: Sent, start_: int) -> bytes:
        """What it has printed."""
        return start.output(self._to, job.handle["job"], start_)

    def stop(self, job: Sent, patience: float) -> None:
        """End its process."""
        start.stop(self._to, job.handle["job"], patience)

    def bring(self, job: Sent) -> list[str]:
        """Deliver what the record has not heard yet, and bring the files."""
        if not job.handle:
            return []
        if not begin.is_left(self._to, job):
            self.strike(job)
            return [f"nothing of {job.command.name} is left on {self.host}"]
        store = connect_to(process.address_of(job.command, os.environ))
        if begin.is_unsettled(self._to, job):
            with self.attended(job):
                begin.settle(self._to, job)
        said = returned.bring(self._to, store, job.command.run, begin.ground(job), self.checkpoints)
        self.strike(job)
        said.append(f"it stays on {self.host} too, until: ssh {self.host} rm -r {job.handle['job'].rpartition('/')[0]}")
        return said

    def strike(self, job: Sent) -> None:
        """Forget the key of its door."""
        route.identity_file(job.command.run).unlink(missing_ok=True)

    @contextmanager
    def attended(self, job: Sent) -> Iterator[None]:
        """The way to the record, open within the block; once, however often it is asked for."""
        if self._attended or not job.handle:
            yield
            return
        way = begin.route_of(job)
        self._attended = True
        try:
            with route.standing(self._to, way, process.address_of(job.command, os.environ), job.command.run):
                yield
        finally:
            self._attended = False

    def attend(self, command: Command) -> int:
        """Stay with it; where nobody is to wait, until its run has begun."""
        if self.wait:
            return super().attend(command)
        job = sent.required(command.run)
        try:
            with self.attended(job):
                look = self._first_sign(job)
        except KeyboardInterrupt:
            again = f"python -m mlops_llm.launch op=attend op.job={command.name}"
            console.warn(f"{command.name} has not begun yet, and may need somebody for that: {again}   (end it: op=cancel)")
            return DETACHED
        if look.state.ended:
            return attend(job)
        console.say(f"{command.name} has begun on {self.host}")
        return 0

    def _first_sign(self, job: Sent) -> Look:
        """How a process is once its run goes on, or it has ended; a lost connection is waited for."""
        told = False
        while True:
            try:
                look = self.look(job)
                if look.state.ended:
                    return look
                seen = queued.look(process.address_of(job.command, os.environ), job.command.run)
                if seen.begun and seen.alive:
                    return look
            except (LostError, AwayError) as error:
                if not told:
                    console.warn(f"{error}; waiting for it")
                told = True
            time.sleep(_LOOK)

    def where(self, handle: Mapping[str, str]) -> str:
        """The machine."""
        return self.host

    @property
    def _to(self) -> Connection:
        return Connection(self.host, str(Path(self.config).expanduser()) if self.config else "")

    _attended = False
