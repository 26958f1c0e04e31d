"""The process of one program: limits first, then the program, then word of how it ended.

`code` starts this file by itself; it imports nothing of the package. On stdin it gets a JSON object: `program`, `token`,
`limits` (name in `resource` -> value), `user` (to become, or null), `reads` and `seconds`; on stdout it says token and ending.
"""

import ctypes
import json
import os
import resource
import signal
import sys

LATE, BUSY = 124, 123
"""Exit codes of a program whose time, or whose processor time, is up."""
KEEP_CAPABILITIES, READ_SEARCH, VERSION = 8, 1 << 2, 0x20080522
"""PR_SET_KEEPCAPS, CAP_DAC_READ_SEARCH and _LINUX_CAPABILITY_VERSION_3."""


def become(user: int | None, *, reads: bool) -> None:
    """Give up all rights, as root by becoming another user; with `reads` every file may still be read.

    Python may lie in root's home. A user who is root in a namespace of its own would pass over the rights of folders.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc and reads:
        libc.prctl(KEEP_CAPABILITIES, 1, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if libc:
        kept = READ_SEARCH if reads else 0
        # Effective, permitted and inheritable, twice: the second half is for capabilities from 32 on.
        libc.capset((ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


def main() -> None:
    """Run the program that stdin brings."""
    asked = json.load(sys.stdin)
    said, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    become(asked["user"], reads=asked["reads"])
    # The first process of a namespace does not heed signals that it has no handlers for.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(LATE))
    signal.signal(signal.SIGXCPU, lambda *_: os._exit(BUSY))
    signal.alarm(asked["seconds"])  # in case nobody is left to end it
    for name, value in asked["limits"].items():
        # A second more of processor time, after which the system itself ends the process.
        resource.setrlimit(getattr(resource, name), (value, value + (name == "RLIMIT_CPU")))
    try:
        exec(compile(asked["program"], "<program>", "exec"), {})
        ending = "passed"
    except BaseException as error:
        ending = f"{type(error).__name__}: {error}"[:200]
    # Without the token a program that ends the process itself has not passed.
    os.write(said, json.dumps({"token": asked["token"], "ending": ending}).encode("ascii"))
    os._exit(0)


if __name__ == "__main__":
    main()
