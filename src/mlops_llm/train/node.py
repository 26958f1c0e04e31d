"""A machine's part of a training over several: started there by srun or ssh (`nodes`), it runs torchrun and ends with it.

Read from its file, before anything of this package could be found there: standard library only. One line of JSON on standard
input says what to run; when standard input ends, the process that sent it is gone, and what was started is ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATIENCE = 15.0
"""Seconds that torchrun has to end its processes."""
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What SLURM sends to the processes of a job; where they are to save first, the one that holds the record tells the others."""


def main() -> int:
    """Run what is asked for; return its exit code."""
    told = json.loads(sys.stdin.readline())
    here = socket.gethostname()
    if not Path(told["needs"]).exists():
        sys.stderr.write(f"error: {here} does not see {told['needs']}: all machines must see the same folders\n")
        return 2
    started, asked = list[subprocess.Popen[Any]](), threading.Event()
    if told["saves"]:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)  # for what is started here too, until it has learned to heed them
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: end(started[0]) if started else asked.set())
    try:
        child = subprocess.Popen(
            told["words"],
            cwd=told["folder"],
            env=surroundings(os.environ, told["environment"]),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        sys.stderr.write(f"error: {here}:{error.filename}: {error.strerror}\n")
        return 2
    started.append(child)
    if asked.is_set():  # while it was being started
        end(child)
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def surroundings(own: Mapping[str, str], sent: Mapping[str, str]) -> dict[str, str]:
    """The environment here: as sent, but of a scheduler's job what it says of this machine."""
    mine = {name: value for name, value in own.items() if name.startswith("SLURM_")}
    if mine and "CUDA_VISIBLE_DEVICES" in own:
        mine["CUDA_VISIBLE_DEVICES"] = own["CUDA_VISIBLE_DEVICES"]
    return {**own, **sent, **mine}


def end(child: subprocess.Popen[Any]) -> None:
    """End torchrun, which ends its processes."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGHUP)  # it may not hear SIGTERM
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)


def _end_with_input(child: subprocess.Popen[Any]) -> None:
    sys.stdin.read()
    end(child)


if __name__ == "__main__":
    sys.exit(main())
