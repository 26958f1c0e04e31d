"""The machines of a training over several: how torchrun starts on each, in a SLURM job by srun, elsewhere by ssh."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.launch import stopping
from mlops_llm.ports import free_port

if TYPE_CHECKING:
    from mlops_llm.train.distributed import Several

_IN_JOB, _NODES = "SLURM_JOB_ID", "SLURM_JOB_NUM_NODES"
_NOT_SENT = ("SLURM_", "HOSTNAME", "SSH_")
"""Beginnings of variables that say something of this machine only."""
_JOIN = 120
"""Seconds in which all machines are to be there."""
_OF_SSH = 255
"""Exit code by which ssh says that it failed itself."""
_OF_REQUEST = 2
"""That of a machine which cannot start what is asked for."""


@dataclass(frozen=True)
class Start:
    """A process to be started here, which starts torchrun here or on other machines."""

    words: list[str]
    told: str = ""
    """What it reads from its standard input, which then stays open."""
    machine: str = ""
    """Where that is, as ssh calls it; empty for this one, and for srun, which starts it on all of a job's."""


def require(how: Several) -> None:
    """See that the other machines can be asked.

    Raises:
        UserError: there is no way to them, or the job has fewer.
    """
    if how.nodes == 1:
        return
    if how.hosts:
        if shutil.which("ssh") is None:
            raise UserError("ssh is not installed here, and the other machines are started with it", "distributed.hosts")
        return
    if _IN_JOB not in os.environ:
        remedy = "name the other machines: distributed.hosts=[…], or start it with launch=slurm launch.nodes=…"
        raise UserError(f"is {how.nodes}, and this command is in no SLURM job", "distributed.nodes", remedy)
    there = int(os.environ.get(_NODES, "1"))
    if there < how.nodes:
        raise UserError(f"is {how.nodes}, and the SLURM job has {there} nodes", "distributed.nodes", f"give at most {there}")


def address(how: Several) -> str:
    """This machine for the others; on one machine alone itself."""
    if how.nodes == 1:
        return "127.0.0.1"
    return how.address or socket.gethostname()


def torchrun(how: Several, name: str) -> list[str]:
    """The command that starts the processes of one machine and lets them find those of the others.

    Args:
        how: many there are.
        name: of the run.
    """
    words = [sys.executable, "-m", "mlops_llm.train.elastic", f"--nnodes={how.nodes}", f"--nproc-per-node={how.on_each}"]
    words += [f"--max-restarts={how.restarts}"] if how.restarts else []
    if how.nodes == 1 and not how.port:
        return [*words, "--standalone", "--local-addr=127.0.0.1"]
    if how.nodes == 1:
        return [*words, "--master-addr=127.0.0.1", f"--master-port={how.port}"]
    place = address(how)
    port = how.port or free_port(_resolved(place))
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={place}:{port}", f"--rdzv-id={name}", f"--rdzv-conf=join_timeout={_JOIN}"]
    if _resolved(place).startswith("127."):
        meet.append("--local-addr=127.0.0.1")
    return [*words, *meet]


def starts(how: Several, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> list[Start]:
    """What is to be started here so that `words` run on every machine.

    Args:
        how: which machines.
        words: the command; its last is a file that each must see.
        folder: where it runs, on each.
        environment: of the command here; it goes to the others through their standard input, so that no secret stands in a
            command line.
    """
    if how.nodes == 1:
        return [Start(list(words))]
    if _resolved(address(how)).startswith("127.") and how.hosts:
        console.warn(f"other machines cannot reach this one as {address(how)} (a loopback address): give distributed.address")
    sent = {name: value for name, value in environment.items() if not name.startswith(_NOT_SENT)}
    others = _meeting(words, here=False) if how.hosts else list(words)
    asked = {"environment": sent, "folder": str(folder), "words": others, "needs": words[-1]}
    told = json.dumps({**asked, "saves": stopping.grace() > 0}) + "\n"
    agent = [sys.executable, "-P", str(Path(__file__).with_name("node.py"))]
    if how.hosts:
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"]
        return [Start(_meeting(words, here=True)), *(Start([*ssh, host, shlex.join(agent)], told, host) for host in how.hosts)]
    share = [f"--nodes={how.nodes}", f"--ntasks={how.nodes}", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=0"]
    return [Start(["srun", *share, *agent], told)]


def failure(machine: str, code: int, said: str, log: str, on: str) -> UserError | None:
    """What became of another machine; None where its processes say that themselves.

    Args:
        machine: as ssh calls it.
        code: exit code of ssh, not 0.
        said: the last line that came from there.
        log: file of all of them.
        on: how to go on, once all processes were there; before that empty.
    """
    what = f"{machine}: {said or f'ssh ended with exit code {code}'}"
    lost = code == _OF_SSH or code < 0
    if lost and on:
        return UserError(f"the connection was lost ({what})", log, on)
    if lost:
        remedy = f"see that this goes without a question: ssh {machine} true"
        return UserError(f"a machine does not answer ({what})", "distributed.hosts", remedy)
    if not on or code == _OF_REQUEST:
        return UserError(f"the processes did not start ({what})", "distributed.hosts")
    return None


def _meeting(words: Sequence[str], here: bool) -> list[str]:
    """The words on a machine; torchrun would only guess whether the others are to meet there, by the machine's own names."""
    return [f"{word},is_host={str(here).lower()}" if word.startswith("--rdzv-conf=") else word for word in words]


def _resolved(place: str) -> str:
    try:
        return socket.gethostbyname(place)
    except OSError as error:
        remedy = "give distributed.address, by which the other machines reach this one"
        raise UserError(f"this machine's name stands for no address ({error.strerror})", place, remedy) from error
