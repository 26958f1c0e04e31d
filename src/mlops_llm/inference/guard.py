"""`python guard.py COMMAND...`: runs a command, and ends it with all its children as soon as the process is gone that asked.

It leads a process group of its own. However the asker ends, even by SIGKILL, its end of this program's standard input closes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

PAUSE = 0.2
"""Seconds between two looks at the command."""
GRACE = 10.0
"""Seconds that the command has to end by itself once it is told to."""


def main(command: list[str]) -> None:
    """Run until the command ends, the input closes, or the asker is gone; then end the group, this process included."""
    asker, told = os.getppid(), list[int]()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: told.append(number))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while child.poll() is None and os.getppid() == asker and not told:
        if select.select([0], [], [], PAUSE)[0]:
            break
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
