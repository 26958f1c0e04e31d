"""Keeps a server as long as the process that started it lives: `python -m mlops_llm.launch.keeper COMMAND …`.

That process holds the other end of this one's standard input. However it ends, also by kill -9, the end is closed, and the
server is stopped.
"""

from __future__ import annotations

import subprocess
import sys
import threading

_PATIENCE = 5.0


def keep(command: list[str]) -> int:
    """Run a command until it ends, or until standard input does; return its exit code."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_with_input, args=(server,), daemon=True).start()
    return server.wait()


def _stop_with_input(server: subprocess.Popen[bytes]) -> None:
    sys.stdin.read()
    server.terminate()
    try:
        server.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
