"""Where processes listen."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def heard_by(pids: Iterable[int]) -> set[str]:
    """The addresses at which processes and all their children listen over TCP."""
    family = [one for pid in pids for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    found = set[str]()
    for each in family:
        with suppress(psutil.Error):
            found |= {one.laddr.ip for one in each.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return found
