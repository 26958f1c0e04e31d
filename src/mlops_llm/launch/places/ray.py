"""`launch=ray`."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.launch import process
from mlops_llm.launch.elsewhere import Elsewhere, Look, LostError
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import JOB, Command
from mlops_llm.tracking import environment, queued
from mlops_llm.tracking.refusals import AwayError
from mlops_llm.tracking.store import check_sharing, database_file

if TYPE_CHECKING:
    from mlops_llm.launch.dashboard import Dashboard
    from mlops_llm.launch.sent import Sent

GRACE = 60
"""Seconds that a stopped job has to save its things: Ray's own three are too few for a checkpoint."""
_LATE = 5.0
"""Seconds in which the last lines of an ended job are there."""
_STATES = {
    "PENDING": State.waiting,
    "RUNNING": State.running,
    "SUCCEEDED": State.done,
    "FAILED": State.failed,
    "STOPPED": State.cancelled,
}
_RAYS = ("Running entrypoint for job ", "Runtime env is setting up.")
"""What Ray writes into a job's output."""
_OF_RAY = ("PYTHONPATH", "CUDA_VISIBLE_DEVICES")
"""Variables that are not passed on as they are: where code lies is said by the command, and GPUs are Ray's to give out."""


class Code(Enum):
    """Where the cluster has our code from."""

    there = "there"
    """It has it: installed, or at the same path on a shared disk."""
    sent = "sent"
    """This checkout is sent as it is, with what is not committed."""


@component("launch", "ray")
@dataclass
class OnRay(Elsewhere):
    """Run the command as a job of a Ray cluster: it waits for what it reserves, and needs this machine no more.

    Its folder is one of the cluster's nodes, and the record must be one that they reach. No key goes through Ray, which shows
    a job's environment on its dashboard: keys are in the environment that the nodes were started with, or in `env_file`.
    """

    address: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The cluster's dashboard; null is RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265."""
    cpus: float = 1.0
    """Processor cores to reserve; the command's threads are as many, unless OMP_NUM_THREADS is set."""
    gpus: float = 0.0
    """GPUs to reserve."""
    memory_gb: Optional[float] = None  # noqa: UP045
    """Memory to reserve, in GiB."""
    resources: Any = None
    """Resources of the nodes' own: 'launch.resources={A100: 1}' (in quotes)."""
    code: Code = Code.there
    """there finds our code on the cluster, installed or at the same path; sent sends this checkout, changes included."""
    python: Optional[str] = None  # noqa: UP045
    """Python on the nodes, which has our dependencies; null is the path of this one."""
    folder: Optional[str] = None  # noqa: UP045
    """Folder on the nodes where the command runs and leaves its files, on a disk that lasts; null is the path of this one."""
    env_file: Optional[str] = None  # noqa: UP045
    """File on the nodes with lines NAME=value, read before the command starts: for keys."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("cpus", 0.0), ("gpus", 0.0), ("memory_gb", 0.0)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UserError(f"is {value}", f"launch.{name}", "give a number from 0")
        good = self.resources is None or (
            isinstance(self.resources, Mapping) and all(isinstance(each, int | float) for each in self.resources.values())
        )
        if not good:
            raise UserError(f"is {self.resources!r}", "launch.resources", "write it as 'launch.resources={A100: 1}'")
        for name in ("folder", "env_file"):
            path = getattr(self, name)
            if path is not None and not PurePosixPath(path).is_absolute():
                raise UserError(f"is {path}", f"launch.{name}", "give an absolute path on the nodes")

    def begin(self, command: Command) -> dict[str, str]:
        """Submit the job.

        Raises:
            UserError: no dashboard answers, it refuses, or the code is too large to be sent.
        """
        from mlops_llm.launch.dashboard import DEFAULT, Dashboard

        check_sharing(process.address_of(command, os.environ))
        address = self.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT
        dashboard = Dashboard(address)
        release = dashboard.version()
        package = _sent(dashboard) if self.code is Code.sent else ""
        job = f"{command.run}-{token_hex(2)}"
        dashboard.submit(self._request(command, job, package))
        try:
            self._warn(command, dashboard)
        except BaseException:  # who is told that it failed must not have it run
            dashboard.stop(job)
            raise
        return {"job": job, "address": dashboard.address, "ray": release}

    def look(self, job: Sent) -> Look:
        """What Ray says of it, and where the head is gone, what the record says."""
        dashboard = _dashboard(job)
        try:
            told = dashboard.job(job.handle["job"])
        except LostError as error:
            return _by_record(job, error)
        if told is None:
            return Look(State.failed, None, f"the cluster at {dashboard.address} knows the job no more: it was started anew")
        state, code = _STATES[told["status"]], told.get("driver_exit_code")
        if state is State.waiting:
            return Look(state, None, self._waits(dashboard))
        if state is State.running:
            return Look(state, None, f"on node {str(told.get('driver_node_id'))[:8]}")
        if state is State.failed:
            return Look(state, code, self._why(dashboard, job, code, str(told.get("message") or "")))
        return Look(state, 0 if state is State.done else code)

    def output(self, job: Sent, start: int) -> bytes:
        """What the command has printed, without Ray's own lines."""
        try:
            return own_lines(_dashboard(job).logs(job.handle["job"])).encode()[start:]
        except LostError:
            if queued.look(process.address_of(job.command, os.environ), job.command.run).alive:
                raise
            return b""  # nobody can tell any more

    def stop(self, job: Sent, patience: float) -> None:
        """Ask it to end, and wait; Ray kills what is left after a minute, whatever `patience` is.

        One that waits for resources hears of it when it gets them: then it ends before it has done anything. Of one that
        goes on though it was asked, a line tells.
        """
        dashboard, until = _dashboard(job), time.monotonic() + min(patience, GRACE) + 10
        dashboard.stop(job.handle["job"])
        while (told := dashboard.job(job.handle["job"])) is not None and _STATES[told["status"]] is State.running:
            if time.monotonic() > until:
                node, page = str(told.get("driver_node_id"))[:8], f"{dashboard.address}/#/jobs"
                console.warn(f"Ray was told to end job {job.handle['job']}, which still runs on node {node}; see {page}")
                return
            time.sleep(0.5)

    @property
    def keeps_runs(self) -> bool:
        """Where the jobs' folder is one of the nodes'."""
        return self.folder is not None

    def where(self, handle: Mapping[str, str]) -> str:
        """The cluster."""
        return f"ray at {handle.get('address', self.address or 'its dashboard')}"

    def _request(self, command: Command, job: str, package: str) -> dict[str, Any]:
        """What Ray is asked: all of it is shown on its dashboard, so there is no secret in it."""
        variables = {name: value for name, value in command.environment.items() if name not in _OF_RAY}
        variables |= {JOB: f"ray/{job}", "PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": str(GRACE)}
        variables |= {"MLFLOW_RUN_ID": command.run} if command.adopts else {}
        wanted = {
            "entrypoint": self._entry(command, bool(package)),
            "submission_id": job,
            "runtime_env": {"env_vars": variables} | ({"working_dir": f"gcs://{package}"} if package else {}),
            "metadata": {"run": command.run, "name": command.name, "stage": command.stage},
            "entrypoint_num_cpus": self.cpus,
            "entrypoint_num_gpus": self.gpus or None,
            "entrypoint_memory": int(self.memory_gb * 2**30) if self.memory_gb else None,
            "entrypoint_resources": dict(self.resources) if self.resources else None,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def _entry(self, command: Command, is_sent: bool) -> str:
        """The job as a line of sh: what it needs there is looked for first, and told by the setting that names it."""
        from mlops_llm.launch.checkout import SOURCES

        python, folder = shlex.quote(self.python or command.python), shlex.quote(self.folder or command.folder)
        known = command.environment.get("PYTHONPATH", "")
        paths = f'"$PWD/{SOURCES}"' if is_sent else shlex.quote(known)
        lines = [f"export PYTHONPATH={paths}"] if is_sent or known else []
        if self.env_file:
            file = shlex.quote(self.env_file)
            lines.append(f"[ -r {file} ] || {_refusal('launch.env_file', f'there is no {self.env_file} on the node')}")
            lines.append(f"set -a; . {file}; set +a")
        if self.folder:
            lines.append(f"mkdir -p {folder} 2>/dev/null")
        lost = f"there is no {self.folder or command.folder} on the node"
        lines.append(f"cd {folder} 2>/dev/null || {_refusal('launch.folder', lost)}")
        what = f"{self.python or command.python} on the node is no Python from 3.11 with mlops_llm"
        is_new = "import sys, mlops_llm; sys.exit(sys.version_info < (3, 11))"
        lines.append(f"{python} -c '{is_new}' 2>/dev/null || {_refusal('launch.python', f'{what}; see launch.code')}")
        if database_file(command.tracking):
            lines.append(f"{python} -m mlops_llm.launch.nodes {shlex.quote(environment.machine())} || exit 2")
        words = shlex.join(["-m", f"mlops_llm.{command.stage}", *command.words])
        return "; ".join([*lines, f"exec {python} {words}"])

    def _warn(self, command: Command, dashboard: Dashboard) -> None:
        """Say what only the cluster can provide."""
        by = f"in {self.env_file}" if self.env_file else "where its nodes were started, or in a file that launch.env_file names"
        for name in command.lacks(os.environ):
            console.say(f"needs:       {name} in the job's environment: {by}")
        if short := self._short(dashboard):
            console.warn(f"it waits until the cluster has room: {short}")

    def _short(self, dashboard: Dashboard) -> str:
        """What is asked for and no set of nodes of now has; empty where all is there, or nobody knows."""
        try:
            there = dashboard.resources()
        except UserError:
            return ""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory_gb or 0) * 2**30, **(self.resources or {})}
        lacks = [name for name, count in asked.items() if there and count > there.get(name, 0)]
        return ", ".join(f"it asks for {_amount(n, asked[n])}, all nodes have {_amount(n, there.get(n, 0))}" for n in lacks)

    def _waits(self, dashboard: Dashboard) -> str:
        return self._short(dashboard) or "waits for free resources, or for its environment to be unpacked"

    def _why(self, dashboard: Dashboard, job: Sent, code: int | None, message: str) -> str:
        """Why it failed: its own last error line, else what Ray says."""
        if code is not None and code < 0:
            return f"its process was killed (signal {-code})"
        if code is not None:
            return _last_error(dashboard, job.handle["job"])[:300] or f"exit code {code}"
        return f"Ray says: {' '.join(message.split())[:300]}" if message else ""


def _last_error(dashboard: Dashboard, job: str) -> str:
    """What a job's last error line says; the line may come to the head later than the job's end."""
    until = time.monotonic() + _LATE
    while True:
        with suppress(UserError):
            lines = [line for line in own_lines(dashboard.logs(job)).splitlines()[-200:] if line.startswith("error: ")]
            if lines:
                return lines[-1].removeprefix("error: ")
        if time.monotonic() > until:
            return ""
        time.sleep(0.5)


def own_lines(text: str) -> str:
    """A job's output without Ray's lines; a last line that may become one of them is left for later."""
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not any(each in line for each in _RAYS)]
    if kept and not kept[-1].endswith("\n") and any(each.startswith(kept[-1]) for each in _RAYS):
        kept.pop()
    return "".join(kept)


def _dashboard(job: Sent) -> Dashboard:
    from mlops_llm.launch.dashboard import Dashboard

    if "job" not in job.handle:
        raise UserError("it was not handed over whole", job.command.name, "type its command again")
    return Dashboard(job.handle["address"])


def _sent(dashboard: Dashboard) -> str:
    """Have this checkout in the cluster's store, and return its name there; what is there already is not sent again."""
    from mlops_llm.launch.checkout import Checkout
    from mlops_llm.launch.dashboard import LARGEST

    code = Checkout()
    remedy = f"leave {code.largest}, the largest file, out of it (.gitignore), or have the code there: launch.code=there"
    if code.bytes > 10 * LARGEST:
        raise UserError(f"the code is {console.size(code.bytes)}, too large to be sent", str(code.root), remedy)
    package = f"_ray_pkg_{code.digest[:32]}.zip"
    if dashboard.has(package):
        return package
    with code.packed() as file:
        size = file.stat().st_size
        if size > LARGEST:
            what = f"the code is {console.size(size)} when packed, the cluster takes {console.size(LARGEST)}"
            raise UserError(what, str(code.root), remedy)
        dashboard.upload(package, file)
    return package


def _by_record(job: Sent, lost: LostError) -> Look:
    """How a job is whose head does not answer, by its run.

    Raises:
        LostError: the run still shows life, or never began.
    """
    try:
        seen = queued.look(process.address_of(job.command, os.environ), job.command.run)
    except AwayError:
        raise lost from None
    if seen.status in ("FINISHED", "FAILED", "KILLED"):
        state = {"FINISHED": State.done, "FAILED": State.failed, "KILLED": State.cancelled}[seen.status]
        return Look(state, None, "" if state is State.done else "as the record says; the head does not answer")
    if seen.alive or seen.status == "SCHEDULED":
        raise lost
    return Look(State.failed, None, f"the head at {job.handle['address']} is gone, and the run shows no sign of life")


def _refusal(where: str, what: str) -> str:
    return f"{{ echo {shlex.quote(f'error: {where}: {what}')}; exit 2; }}"


def _amount(name: str, count: float) -> str:
    return f"{count / 2**30:.1f} GiB of memory" if name == "memory" else f"{count:g} {name}"
