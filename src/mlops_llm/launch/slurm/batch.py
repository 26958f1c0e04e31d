"""The batch script of `launch=slurm` and its submission.

submitit writes the script's head, of settings named as those of `hydra.launcher` are, and the line that starts it on each node.
Its own way of running a job, a pickled function, is not used: what runs is a command line.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError, first_line, need
from mlops_llm.launch import process
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.place import Command
from mlops_llm.launch.slurm import asking
from mlops_llm.launch.slurm.folder import JobFolder

_NODE = "-m mlops_llm.launch.slurm.node"
_OF_A_JOB = ("SLURM_", "SRUN_")
"""What begins the names of variables of a job, which are not another's."""
_STAYS = ("SLURM_CONF",)
_VARIABLES = {
    "time": ("TIMELIMIT",),
    "mem": ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"),
    "gpus-per-node": ("GPUS_PER_NODE", "GPUS", "GPUS_PER_TASK"),
    "requeue": ("REQUEUE", "NO_REQUEUE"),
    "no-requeue": ("REQUEUE", "NO_REQUEUE"),
}
"""Options of sbatch with variables that are called otherwise, or that say the same in another way."""


def script(folder: JobFolder, python: str, settings: Mapping[str, Any], step: list[str]) -> str:
    """The batch script of a job.

    Args:
        folder: of the job.
        python: what starts Python on a node, as a line of shell.
        settings: of submitit's SlurmExecutor.
        step: options of srun, which does not take all of sbatch's over.

    Raises:
        UserError: submitit is not installed, or refuses a setting.
    """
    need("submitit", "slurm")
    from submitit import SlurmExecutor

    where = shlex.quote(str(folder.path))
    before, after = (f"{python} {_NODE} {what} {where}" for what in ("prepare", "conclude"))
    executor = SlurmExecutor(folder.path)
    try:
        executor.update_parameters(
            **{
                **settings,
                "setup": [*settings["setup"], f"{before} || exit $?"],
                "teardown": [after],
                "srun_args": ["--open-mode=append", "--kill-on-bad-exit=1", *step],
                "stderr_to_stdout": True,
                "wckey": None,
            }
        )
    except ValueError as error:
        raise UserError(first_line(error), "launch") from error
    return str(executor._make_submission_file_text(f"{python} {_NODE} run {where}", ""))


def submit(folder: JobFolder, text: str, command: Command) -> str:
    """Hand a script over; return SLURM's number of the job.

    The variables of this process go with it, through SLURM, and a password in the record's address with them: into no file
    that is written here.

    Raises:
        UserError: SLURM refuses it, or does not answer.
    """
    folder.script.write_text(text, "utf-8")
    try:
        told = asking.ask(["sbatch", "--parsable", str(folder.script)], _environment(command, text), command.folder)
    except LostError as error:
        raise UserError(f"SLURM does not take the job ({error.what})", "launch", _remedy(error.what)) from error
    return told.strip().partition(";")[0]


def _environment(command: Command, text: str) -> dict[str, str]:
    """Variables of the job: those of here, without what says which job, run or GPU this process itself is of.

    To sbatch its variables (SBATCH_ACCOUNT) count for more than its script; here they only count where the script says nothing.
    """
    options = re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)
    said = [name for each in options for name in _VARIABLES.get(each, (each.replace("-", "_").upper(),))]
    beaten = {f"SBATCH_{name}" for name in said}
    others = {*process.OWN, "CUDA_VISIBLE_DEVICES", *beaten}
    mine = {name: value for name, value in os.environ.items() if name not in others}
    mine = {name: value for name, value in mine.items() if not name.startswith(_OF_A_JOB) or name in _STAYS}
    given = {name: value for name, value in command.environment.items() if name not in others}
    return {**mine, **given, "MLFLOW_TRACKING_URI": process.address_of(command, os.environ)}


def _remedy(said: str) -> str:
    if "contact" in said.lower() or "did not answer" in said:
        return "its controller is away: try again, or ask who runs the cluster"
    if "partition" in said.lower():
        return "see the partitions: sinfo"
    return "see what there is: sinfo --Node --long"


def found_folder(folder: Path, name: str) -> JobFolder:
    """A new folder for a job.

    Raises:
        UserError: it cannot be made.
    """
    number, path = 1, folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir(mode=0o700)
                return JobFolder(path)
            except FileExistsError:
                number += 1
                path = folder / f"{name}-{number}"
    except OSError as error:
        remedy = "name a folder that the nodes see too: launch.folder"
        raise UserError(f"cannot keep the job's files ({error.strerror})", str(folder), remedy) from error
