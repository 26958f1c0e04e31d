"""`python -m mlops_llm.train.worker SETTINGS.json`: one of the processes of a training, started by torchrun (`launcher`).

It rebuilds the settings and the plan from JSON, without Hydra. The first process hands its record and what it prints to the
launcher; the others train along and write nothing.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from mlops_llm import component, console, garbage
from mlops_llm.errors import UserError, first_line
from mlops_llm.launch import stopping
from mlops_llm.record import NullRun, Result, Run
from mlops_llm.train import elastic
from mlops_llm.train.relay import Launcher, RelayedRun

MISSED = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo", "Broken pipe")
"""What an error says that comes of another process's end."""


def main(file: Path) -> int:
    """Train as the settings in `file` say, and tell the launcher how it ended."""
    from mlops_llm.train.group import DOOR

    garbage.put_off()
    rank = int(os.environ["RANK"])
    if stopping.grace():
        stopping.heed()
    to = Launcher(file.parent / DOOR, rank)
    _print_to(file.parent / f"rank-{rank}.log", again=to.start > 0)
    try:
        result = _train(file, rank, to)
    except stopping.Terminated:
        to.tell(left=True)
        return 0  # torchrun would start it again
    except BaseException as error:
        traceback.print_exc()
        to.tell(**_failure(error))
        return 1
    to.tell(done=result if rank == 0 else None)
    return 0


def _train(file: Path, rank: int, to: Launcher) -> Result:
    console.tell(lambda what, values: None)  # the launcher has said what there is to say of the plan
    asked = json.loads(file.read_text("utf-8"))
    settings = _settings(asked["settings"])
    _take_place(settings.distributed.count)
    settings.distributed.join()
    from mlops_llm.train.checkpoints import drop_unfinished
    from mlops_llm.train.history import Correction
    from mlops_llm.train.plan import Known, Plan, prepare
    from mlops_llm.train.train import fit_here

    if to.start:
        settings.resume = asked["run"]
        if rank == 0:
            drop_unfinished(Path(str(settings.output)))
    plan = prepare(settings, Known(Correction(**asked["correction"]), asked["start"]))
    assert isinstance(plan, Plan)
    run: Run = NullRun()
    if rank == 0:
        run = RelayedRun(to, asked["run"], Path(str(settings.output)))
        console.tell(lambda what, values: to.tell(told=what, values=values))
    garbage.settle()
    result = fit_here(plan, run)
    import torch.distributed as dist

    dist.destroy_process_group()
    return result


def _settings(values: Any) -> Any:
    from mlops_llm.launch.place import PLACES
    from mlops_llm.train.config import PACKAGES, Train

    for package in (*PACKAGES, PLACES):
        component.load(package)
    return component.rebuilt(Train, values)


def _take_place(count: int) -> None:
    """Take this process's GPU, where there are any.

    Raises:
        UserError: other than as many processes were started as were asked for.
    """
    import torch

    elastic.keep_here()
    started = int(os.environ["WORLD_SIZE"])
    if started != count:
        raise UserError(f"{count} processes were asked for, and {started} were started", "distributed.processes")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _failure(error: BaseException) -> dict[str, Any]:
    """What the launcher is told of an error."""
    if isinstance(error, UserError):
        return {"failed": [error.what, error.where, error.remedy], "user": True}
    import torch.distributed as dist

    said = f"{type(error).__name__}: {first_line(error)}"
    missed = isinstance(error, dist.DistError) or any(word in str(error) for word in MISSED)
    return {"failed": [said], "missed": missed, "traceback": traceback.format_exc()}


def _print_to(log: Path, again: bool) -> None:
    """Let all that this process prints, and what libraries print in it, go to a file; after what it printed before."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if again else os.O_TRUNC), 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
