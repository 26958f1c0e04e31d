"""Jobs of a sweep, held while they run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.commands import wait_for
from tests.forks import Fork
from tests.record import client, run_of


def held(folder: Path, sweep: str, step: int, process: subprocess.Popen[str] | Fork) -> list[int]:
    """Hold each of a sweep's two jobs once it has done a step; return the ids of their processes."""
    steps = [folder / "outputs" / sweep / str(number) / "steps.jsonl" for number in (0, 1)]
    found: dict[int, int] = {}

    def both() -> bool:
        for number, file in enumerate(steps):
            if number not in found and file.is_file() and f'"step": {step},' in file.read_text():
                tag = run_of(store, f"{sweep}-{number}").data.tags["run.process"]
                found[number] = int(tag.partition(":")[0])
                os.kill(found[number], signal.SIGSTOP)
        return len(found) == 2

    wait_for((folder / "mlflow.db").exists, process)
    store = client(folder)
    wait_for(both, process, seconds=400)
    return [found[number] for number in (0, 1)]
