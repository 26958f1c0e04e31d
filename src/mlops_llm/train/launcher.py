"""A training in processes of their own: what is started, and with what."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm import component, console
from mlops_llm.errors import UserError
from mlops_llm.files import writable, write_text
from mlops_llm.launch import stopping
from mlops_llm.record import Result, Run
from mlops_llm.train import distributed, nodes
from mlops_llm.train.distributed import Several
from mlops_llm.train.group import Group

if TYPE_CHECKING:
    from mlops_llm.train.config import Train
    from mlops_llm.train.plan import Plan


def launched(plan: Plan, run: Run) -> Result:
    """Train as planned in processes of their own; what the first of them records goes to `run`.

    Raises:
        UserError: one of them failed: its last word, and all have ended.
    """
    folder = writable(Path(str(plan.settings.output)) / "ranks")
    place = plan.files.place
    told = {
        "run": run.name,
        "settings": component.plain(plan.settings),
        "correction": asdict(plan.estimate.correction),
        # An alias may move while they start, or before they start again.
        "start": f"models:/{place.checkpoint}" if place.checkpoint else plan.settings.model,
    }
    file = write_text(folder / "settings.json", json.dumps(told))
    how = plan.settings.distributed
    assert isinstance(how, Several)
    words, env = command(plan.settings, file, run.name), environment(how)
    on = f" on {how.nodes} machines" if how.nodes > 1 else ""
    console.say(f"starting {how.count} processes{on}: {shlex.join(['python', *words[1:]])}")
    begun = nodes.starts(how, words, plan.folder, env)
    group = Group(begun, env, plan.folder, folder, nodes.address(how) if how.nodes > 1 else "")
    try:
        with stopping.saves():
            return group.serve(run, how.count)
    finally:
        group.close()


def dry(settings: Train) -> dict[str, str]:
    """What would be started, for a person who asks for the plan."""
    how = settings.distributed
    if not isinstance(how, Several):
        return {}
    words = command(settings, Path(str(settings.output)) / "ranks" / "settings.json", str(settings.run_name))
    found = {"starts": shlex.join(["python", *words[1:]]), "with": json.dumps(how.arguments(settings))}
    try:
        how.require()
    except UserError as error:
        found["cannot run here"] = str(error)
    return found


def command(settings: Train, file: Path, name: str) -> list[str]:
    """The command that starts the processes, on each machine the same."""
    how = settings.distributed
    assert isinstance(how, Several)
    return [*nodes.torchrun(how, name), "-m", "mlops_llm.train.worker", str(file)]


def environment(how: Several) -> dict[str, str]:
    """The environment of the processes."""
    defaults = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // how.on_each))}
    if sys.platform == "linux" and how.nodes == 1:
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    # Without this one processes of a second start sometimes did not find each other.
    wanted = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    if not distributed.gpus():
        # The second: a resume would look for the random state of a device "cpu:0".
        wanted |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_TORCH_DEVICE": "cpu"}
    if stopping.grace():
        wanted["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGINT"
    return {**defaults, **os.environ, **wanted}
