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
import time

PAUSE = 0.2
"""Seconds between two looks at the command."""
GRACE = 10.0
"""Seconds that the command has to end by itself once it is told to."""
LAST = 3.0
"""Seconds that its children have after it."""


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
    _let_go()
    os.killpg(0, signal.SIGKILL)


def _let_go() -> None:
    """Give what the command leaves a moment to end by itself: Python's resource tracker then removes its shared memory."""
    os.killpg(0, signal.SIGTERM)
    until = time.monotonic() + LAST
    while time.monotonic() < until and _others():
        time.sleep(PAUSE / 4)


def _others() -> bool:
    """Whether another process of the group still runs; one that only waits to be collected does not."""
    import psutil

    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            is_other = pid != os.getpid() and os.getpgid(pid) == os.getpid()
            if is_other and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
