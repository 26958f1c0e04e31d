"""The process of one program: limits first, then the program, then word of how it ended.

`code` starts this file by itself; it imports nothing of the package. On stdin it gets a JSON object: `program`, `token`,
`limits` (name in `resource` -> value), `user` (to become, or null) and `seconds`; on stdout it says token and ending.
"""

import json
import os
import resource
import signal
import sys


def main() -> None:
    """Run the program that stdin brings."""
    asked = json.load(sys.stdin)
    said, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if asked["user"] is not None:
        os.setgroups([])
        os.setgid(asked["user"])
        os.setuid(asked["user"])
    for name, value in asked["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    signal.alarm(asked["seconds"])  # in case nobody is left to end it
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
