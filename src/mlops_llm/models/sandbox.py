"""Somebody else's template, rendered for the first time where it can neither hang nor fill the memory.

jinja2's sandbox, which transformers uses, lets a template reach nothing but what it is given; but a template may still count
for hours or double a text until no memory is left. So the first rendering is done by a fork that the system bounds.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

SECONDS = 10
"""Of processor time; templates take milliseconds."""
MEMORY = 1 << 30
"""Bytes beyond what the process has."""
LONGEST = 1 << 20
"""Characters of what may come out of it."""
_STUCK = 60
"""Seconds after which a fork that waits, such as for a lock that a thread held when it was forked, is given up."""
_DONE, _FAILED, _TOO_LONG, _NO_MEMORY = 0, 3, 4, 5


class UnboundedError(Exception):
    """It takes more than a template may; the message says of what."""


def bounded(render: Callable[[], str]) -> str:
    """Render in a fork first, and only what ended there well, or with an error of its own, here.

    Raises:
        UnboundedError: it takes more time, memory or room than templates do.
        Exception: what rendering raises.
    """
    if sys.platform == "linux":
        _tried(render)
    text = render()
    if len(text) > LONGEST:
        raise UnboundedError(f"writes more than {LONGEST:,} characters for a short conversation")
    return text


def _tried(render: Callable[[], str]) -> None:
    import jinja2.sandbox  # noqa: F401 (once, and not in each fork)

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _render(render)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == _TOO_LONG:
        raise UnboundedError(f"writes more than {LONGEST:,} characters for a short conversation")
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UnboundedError(f"does not end within {SECONDS} s")
    if code == _NO_MEMORY:
        raise UnboundedError(f"takes more than {MEMORY >> 20:,} MiB of memory")


def _render(render: Callable[[], str]) -> NoReturn:
    """What the fork does; it ends without telling anything to what it was forked from."""
    code = _FAILED
    try:
        for number in (signal.SIGXCPU, signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(_STUCK)
        with open("/proc/self/statm") as file:  # noqa: PTH123
            there = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
        code = _TOO_LONG if len(render()) > LONGEST else _DONE
    except MemoryError:
        code = _NO_MEMORY
    except BaseException:  # what it raises is raised again where it is rendered for good
        traceback.clear_frames(sys.exc_info()[2])
    finally:
        os._exit(code)
