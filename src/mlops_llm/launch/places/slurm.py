"""`launch=slurm`."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch import process
from mlops_llm.launch.elsewhere import Elsewhere, Look, LostError
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.sent import Sent
from mlops_llm.launch.slurm import asking, batch
from mlops_llm.launch.slurm.folder import JobFolder, Sheet
from mlops_llm.tracking import environment, queued
from mlops_llm.tracking.store import check_sharing

_SPARE = 10
"""Seconds between the end of a job's grace and that of its time."""
_EARLY = 60
"""Seconds by which SLURM's signal may come too early."""
_PAUSE = 1.0
_ENDING = 120.0
"""Seconds in which SLURM ends a job that it is told to kill."""
_FORGOTTEN = 120.0
"""Seconds after which a job that SLURM does not know is lost."""
_TIME = re.compile(r"(\d+-)?(\d+)(?::(\d+))?(?::(\d+))?")
_NAMED_HERE = {"partition", "nodes", "gpus-per-node", "cpus-per-task", "mem", "time", "account", "qos", "constraint"}


@component("launch", "slurm")
@dataclass
class OnSlurm(Elsewhere):
    """Hand the command to SLURM's queue; what is preempted or out of time saves, is put back and goes on."""

    partition: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Partition; null is the cluster's default."""
    nodes: int = 1
    """Nodes; the command runs on the first and, with distributed.nodes, starts its processes on all."""
    gpus: int = 0
    """GPUs of each node."""
    cpus: Optional[int] = None  # noqa: UP045
    """Cores of each node; null is the cluster's default."""
    memory: Optional[float] = None  # noqa: UP045
    """Memory of each node in GB; null is the cluster's default."""
    time: Optional[str] = None  # noqa: UP045
    """Longest time of one start: minutes, H:MM:SS or D-HH:MM:SS; null is the partition's default."""
    account: Optional[str] = None  # noqa: UP045
    """Account that pays."""
    qos: Optional[str] = None  # noqa: UP045
    """Quality of service."""
    constraint: Optional[str] = None  # noqa: UP045
    """Features that the nodes must have."""
    settings: Any = None
    """More of sbatch's options by their long names: 'launch.settings={exclusive:true,nodelist:gpu7}' (in quotes)."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the command on the first node: 'launch.setup=[module load cuda]' (in quotes)."""
    python: Optional[str] = None  # noqa: UP045
    """What starts Python on a node, as a line of shell; null is the one that runs here."""
    folder: str = "outputs/.slurm"
    """Folder of the jobs' scripts and output, which the nodes must see too."""
    grace: float = 60.0
    """Seconds in which a command that is to stop may save what it did."""
    tries: int = 3
    """Starts in a row at most that come to nothing: killed, or out of time before anything was saved."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("nodes", 1), ("gpus", 0), ("tries", 1)):
            if getattr(self, name) < least:
                raise UserError(f"is {getattr(self, name)}", f"launch.{name}", f"give a whole number from {least}")
        if self.cpus is not None and self.cpus < 1:
            raise UserError(f"is {self.cpus}", "launch.cpus", "give a whole number from 1")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise UserError(f"is {self.memory}", "launch.memory", "give gigabytes above 0")
        if not 0 < self.grace < math.inf:
            raise UserError(f"is {self.grace}", "launch.grace", "give seconds above 0")
        if self.settings is not None and not isinstance(self.settings, Mapping):
            raise UserError(
                "is no mapping",
                "launch.settings",
                "write it in quotes, with sbatch's long names: 'launch.settings={OPTION:VALUE}'",
            )
        twice = _NAMED_HERE & {str(key).replace("_", "-") for key in self.settings or {}}
        if twice:
            raise UserError(f"has {min(twice)}, which has a setting of its own", "launch.settings", "leave it out there")
        if self.time is not None:
            self._check_time(str(self.time))

    def begin(self, command: Command) -> dict[str, str]:
        """Submit the command."""
        asking.require("launch=slurm", "sbatch", "srun", "scontrol")
        check_sharing(process.address_of(command, os.environ))
        folder = batch.found_folder((Path(command.folder) / Path(self.folder).expanduser()).absolute(), command.name)
        try:
            python = self.python or shlex.quote(command.python)
            folder.write(Sheet(command, self.tries, self.grace, environment.machine(), python))
            text = batch.script(folder, python, self._asked(command), self._step())
            job = batch.submit(folder, text, command)
        except BaseException:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        return {"job": job, "folder": str(folder.path)}

    def look(self, job: Sent) -> Look:
        """How a job is: its own word where it left one, else SLURM's."""
        return self._look(job, asking.facts_lately)

    def _look(self, job: Sent, ask: Callable[[str], asking.Facts]) -> Look:
        if not job.handle:
            return Look(State.waiting, note="is being handed over")
        folder = JobFolder(Path(job.handle["folder"]))
        progress = folder.progress()
        if progress.over:
            return Look(_STATES.get(progress.code, State.failed), progress.code, progress.note)
        try:
            look = asking.look_of(ask(job.handle["job"]))
        except asking.ForgottenError as error:
            look = self._forgotten(job, error)
        else:
            folder.is_known()
        if look.state.ended and progress.starts and not progress.over:
            progress = folder.progress()  # it may have had its say meanwhile
            if progress.over:
                return Look(_STATES.get(progress.code, State.failed), progress.code, progress.note)
        if look.state.ended and not progress.starts and look.state is State.failed:
            return look._replace(note=f"{look.note}; it never began: {self._never(job)}")
        if not look.state.ended and progress.starts > 1:
            look = look._replace(note=f"{look.note}, start {progress.starts}")
        return look._replace(note=f"{progress.note}; {look.note}") if progress.note else look

    def output(self, job: Sent, start: int) -> bytes:
        """What it has printed on its first node, over all starts."""
        log = JobFolder(Path(job.handle.get("folder", "."))).log(job.handle.get("job", ""))
        if not log.is_file():
            return b""
        with log.open("rb") as file:
            file.seek(start)
            return file.read()

    def stop(self, job: Sent, patience: float) -> None:
        """Let it save and end; what still is there after `patience` seconds is killed.

        Of a node that cannot end it, which SLURM waits for without bound, a line tells.
        """
        folder, number = JobFolder(Path(job.handle["folder"])), job.handle["job"]
        with suppress(OSError):  # its folder may be gone
            folder.cancel.touch()
        until = time.monotonic() + patience
        if asking.look_of(asking.facts_of(number)).state is State.running:
            asking.ask(["scancel", "--signal=TERM", number])
            while not self._look(job, asking.facts_of).state.ended and time.monotonic() < until:
                time.sleep(_PAUSE)
        if not self._look(job, asking.facts_of).state.ended:
            asking.ask(["scancel", number])
        until = time.monotonic() + _ENDING
        while not (look := self._look(job, asking.facts_of)).state.ended:
            if time.monotonic() > until:
                console.warn(f"SLURM was told to end job {number}, which is still {look.note}; see: scontrol show job {number}")
                return
            time.sleep(_PAUSE)

    def where(self, handle: Mapping[str, str]) -> str:
        """The job's number."""
        return f"slurm job {handle['job']}" if handle else "slurm"

    @contextmanager
    def attended(self, job: Sent) -> Iterator[None]:
        """Say what a job waits for, until it starts."""
        said = ""
        while True:
            try:
                look = self.look(job)
            except LostError:
                break
            if look.state is not State.waiting:
                break
            if look.note != said:
                said = look.note
                console.say(f"{job.command.name} {said}")
            time.sleep(_PAUSE)
        yield

    def _check_time(self, text: str) -> None:
        found = _TIME.fullmatch(text)
        if not found or (found[1] and int(found[2]) > 23):
            raise UserError(f"is '{text}'", "launch.time", "give minutes, H:MM:SS or D-HH:MM:SS")
        days, *parts = found.groups()
        numbers = [int(each) for each in parts if each]
        if days or len(numbers) == 3:  # D-HH, D-HH:MM, D-HH:MM:SS, H:MM:SS
            hours, minutes, seconds = [*numbers, 0, 0][:3]
        else:  # MM, MM:SS
            hours, (minutes, seconds) = 0, [*numbers, 0][:2]
        total = ((int(days[:-1]) if days else 0) * 24 + hours) * 3600 + minutes * 60 + seconds
        if total < self.grace + _SPARE + _EARLY / 2:
            remedy = f"give more than launch.grace={self.grace:.0f} and {_SPARE + _EARLY // 2} seconds, or lower launch.grace"
            raise UserError(f"is '{text}', which leaves no time to work", "launch.time", remedy)

    def _asked(self, command: Command) -> dict[str, Any]:
        """What is asked of SLURM, in submitit's words."""
        more = {str(key): value for key, value in (self.settings or {}).items() if value is not False}
        again = "no-requeue" if command.again is Again.no else "requeue"
        return {
            "job_name": command.name,
            "partition": self.partition,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": f"{math.ceil(self.memory * 1024)}M" if self.memory else None,
            "time": self.time,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "comment": command.run,
            "signal_delay_s": math.ceil(self.grace + _SPARE),
            "setup": list(self.setup),
            "additional_parameters": {"chdir": command.folder, "export": "ALL", again: True} | more,
        }

    def _step(self) -> list[str]:
        """What srun must be told again."""
        return [f"--cpus-per-task={self.cpus}"] if self.cpus else []

    def _forgotten(self, job: Sent, error: asking.ForgottenError) -> Look:
        """How a job is that SLURM does not know: lost, once that has lasted and the record shows no life of it.

        Raises:
            LostError: it may still be there.
        """
        now = time.time()
        remedy = f"it counts as lost once that lasts {_FORGOTTEN:.0f} seconds and its run is not alive"
        waits = LostError(error.what, error.where, remedy)
        try:
            since = JobFolder(Path(job.handle["folder"])).unknown_since(now)
        except OSError:
            since = job.sent
        if now - since < _FORGOTTEN:
            raise waits from error
        try:
            seen = queued.look(process.address_of(job.command, os.environ), job.command.run)
        except UserError as away:
            raise LostError(f"{error.what}; {away.what}", away.where, away.remedy) from away
        if seen.alive:
            raise waits from error
        return Look(State.failed, note=f"{error.what}, and its process left no word")

    def _never(self, job: Sent) -> str:
        """Why a job ended before our program began, as far as its output tells."""
        text = self.output(job, 0).decode("utf-8", "replace").strip()
        if text:
            return asking.said("slurmstepd", text.splitlines()[-1])[:300]
        return f"its node may not see {job.handle['folder']} (launch.folder must be shared)"


_STATES = {0: State.done, 130: State.cancelled, 143: State.cancelled}
