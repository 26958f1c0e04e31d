"""SLURM's commands, and what they say of a job."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import Look, LostError
from mlops_llm.launch.jobs import State

Facts = Mapping[str, str]
"""SLURM's words for what it knows of a job: JobState, Reason, NodeList, ..."""
_PATIENCE = 60.0
_COLUMNS = ("JobID", "State", "ExitCode", "NodeList", "Reason", "Restarts")
_OPEN = {"PENDING": State.waiting, "REQUEUED": State.waiting, "REQUEUE_FED": State.waiting, "REQUEUE_HOLD": State.waiting}
_RUNS = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING", "PREEMPTED")
_ENDLESS = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|PartitionDown|PartitionInactive|BadConstraints|JobHeld|NeverSatisfied|"
    r"Account(NotAllowed)|Invalid(Account|QOS)|QOSNotAllowed|(QOS|Assoc).*Max.*PerJob|(QOS|Assoc)MaxWallDuration|"
    r"launch_?failed|ReqNodeNotAvail|DOWN"
)
"""Reasons for which a job waits until a person does something."""
_ENDS = {
    "TIMEOUT": "its time limit was reached",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it had more memory than it asked for (launch.memory)",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "its deadline passed",
    "PREEMPTED": "it was preempted",
    "CANCELLED": "cancelled",
}


class _Told(NamedTuple):
    """What SLURM said of a job, when it was last asked, and since when it says so; seconds of a clock of this process."""

    facts: Facts
    asked: float
    since: float


_told: dict[str, _Told] = {}
_RAREST = 10.0
"""Seconds between two questions about the same job, at most."""
_TELLING = ("JobState", "Reason", "Restarts")


class ForgottenError(LostError):
    """SLURM answers, and does not know the job, or only from accounts that nobody closed: it ended, or these lag behind."""


def require(where: str, *names: str) -> None:
    """See that SLURM's commands are here, which the setting `where` needs.

    Raises:
        UserError: they are not.
    """
    for name in names:
        if shutil.which(name) is None:
            remedy = "type the command on a login node of the cluster"
            raise UserError(f"SLURM is not installed on this machine (no {name})", where, remedy)


def ask(words: Sequence[str], environment: Mapping[str, str] | None = None, folder: str | None = None) -> str:
    """What one of SLURM's commands prints.

    Raises:
        LostError: it failed; its own words are in the message, on one line.
    """
    try:
        done = subprocess.run(
            words, env=environment, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LostError(f"{words[0]} did not answer within {_PATIENCE:.0f} seconds", "launch") from error
    if done.returncode:
        raise LostError(said(words[0], done.stderr or done.stdout) or f"{words[0]} failed", "launch")
    return done.stdout


def said(program: str, text: str) -> str:
    """The messages of one of SLURM's commands on one line, each once."""
    lines = [re.sub(rf"^({program}|slurm_\w+)?:? ?(error|fatal)?: ", "", line).strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


def facts_of(job: str) -> Facts:
    """What SLURM knows of a job: its controller, which forgets ended ones after minutes, else its accounting.

    Raises:
        ForgottenError: the controller does not know it, and no accounts tell how it ended.
        LostError: one that must be asked does not answer.
    """
    try:
        return controlled(ask(["scontrol", "--oneliner", "show", "job", job]))
    except LostError as error:
        if "invalid job id" not in str(error).lower():
            raise
    try:
        told = accounted(ask(["sacct", "--parsable2", f"--format={','.join(_COLUMNS)}", "-j", job]))
    except LostError as error:
        if "accounting storage is disabled" in error.what.lower():
            raise ForgottenError(f"SLURM knows no job {job} and keeps no accounts", "scontrol") from error
        raise LostError(f"SLURM's accounting does not tell of job {job} ({error.what})", "sacct") from error
    if not told:
        raise ForgottenError(f"SLURM knows no job {job}", "sacct")
    if not look_of(told).state.ended:
        raise ForgottenError(f"SLURM knows job {job} from its accounts only, as {told['JobState']}", "sacct")
    return told


def facts_lately(job: str) -> Facts:
    """What SLURM said of a job last; it is asked again the more rarely the longer that stays so.

    Each question costs the cluster's one controller, and many may attend jobs for hours.

    Raises:
        LostError: as `facts_of`.
    """
    now, known = time.monotonic(), _told.get(job)
    if known and now - known.asked < min(_RAREST, (now - known.since) / 10):
        return known.facts
    facts = facts_of(job)
    same = known is not None and all(known.facts.get(key) == facts.get(key) for key in _TELLING)
    _told[job] = _Told(facts, now, known.since if known and same else now)
    return facts


def controlled(text: str) -> Facts:
    """What `scontrol --oneliner show job` says; of a job of several lines, the first."""
    lines = text.strip().splitlines()
    return dict(re.findall(r"(?:^| )([A-Z]\w*(?::\w+)?)=(\S*)", lines[0])) if lines else {}


def accounted(text: str) -> Facts:
    """What `sacct --parsable2` says of a job, its steps left out; of several starts the last. Empty where it has none."""
    names, *rows = [line.split("|") for line in text.splitlines()] or [[]]
    found = [dict(zip(names, row, strict=False)) for row in rows]
    mine = [each for each in found if "." not in each["JobID"]]
    if not mine:
        return {}
    last = mine[-1]
    return {**last, "JobState": last["State"].partition(" ")[0]}  # CANCELLED by 0


def look_of(facts: Facts) -> Look:
    """How a job is, by SLURM's word; its exit code says nothing of ours."""
    state, reason = facts.get("JobState", ""), facts.get("Reason", "None")
    nodes = facts.get("NodeList", "")
    where = f" on {nodes}" if nodes and nodes not in ("(null)", "None assigned") else ""
    if state in _OPEN:
        again = f", started {facts['Restarts']} times before" if facts.get("Restarts", "0") != "0" else ""
        return Look(State.waiting, note=f"waits{_why(reason)}{again}")
    if state in _RUNS:
        return Look(State.running, note=f"{state.lower()}{where}")
    ended = State.cancelled if state == "CANCELLED" else State.failed
    return Look(ended, note=_ENDS.get(state, f"SLURM ended it as {state}, exit code {facts.get('ExitCode', '?')}{where}"))


def is_preempted(facts: Facts) -> bool:
    """Whether SLURM takes the job's place for another one."""
    return facts.get("PreemptTime", "None") != "None"


def seconds_left(facts: Facts) -> float | None:
    """Seconds until a job's time limit; None where it has none."""
    try:
        return (datetime.fromisoformat(facts["EndTime"]) - datetime.now()).total_seconds()
    except (KeyError, ValueError):
        return None


def _why(reason: str) -> str:
    if reason in ("None", ""):
        return ""
    return f": {reason}" + (", which does not pass by itself" if _ENDLESS.search(reason) else "")
