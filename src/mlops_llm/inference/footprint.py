"""Memory that a piece of work takes, with all processes that it starts."""

from __future__ import annotations

import os
import threading
from types import TracebackType

PAUSE = 0.1
"""Seconds between two readings."""


class Footprint:
    """Watches the memory of this process and its children within a `with` block."""

    def __init__(self) -> None:
        """Begin with what there is."""
        self.peak = 0
        """Most bytes of resident memory that the processes held together."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Footprint:
        """Begin to watch."""
        self._read()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Read for the last time."""
        self._stop.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE):
            self._read()

    def _read(self) -> None:
        import psutil

        total = 0
        try:
            own = psutil.Process(os.getpid())
            for each in (own, *own.children(recursive=True)):
                try:
                    total += each.memory_info().rss
                except psutil.Error:
                    continue  # it ended just now
        except psutil.Error:
            return
        self.peak = max(self.peak, total)


def gpu_peak() -> int | None:
    """Most bytes that torch has held on the GPU in this process; None without one, or where torch was not used."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
