"""What a person reads on a terminal, and the same lines in the log file."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_log = logging.getLogger("mlops_llm")
_log.addHandler(logging.NullHandler())
_label = ""
_told: Callable[[str, list[Any]], None] | None = None
_ELSEWHERE = 160
"""Characters of a line where there is no terminal."""


class _Formatter(logging.Formatter):
    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


def hush() -> None:
    """Keep what libraries print of their own doings off the terminal, and their bars out of files."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"


def log_to(path: Path, mask: Callable[[str], str] = str) -> logging.Handler:
    """Send this process's log (ours and the libraries' warnings), masked, to a file from now on; return the handler."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Formatter(mask))
    logging.getLogger().addHandler(handler)
    _log.setLevel(logging.INFO)
    return handler


@contextmanager
def labelled(name: str) -> Iterator[None]:
    """Within the block every line begins with a job's name, and details are only logged: several jobs may print at once."""
    global _label
    _label = f"{name}: "
    try:
        yield
    finally:
        _label = ""


def tell(listener: Callable[[str, list[Any]], None]) -> None:
    """Print nothing in this process from now on: what would be printed goes to `listener`, for `told` in another process.

    Args:
        listener: called with what is to be done (`say`, `warn`, `progress`, ...) and its values.
    """
    global _told
    _told = listener


class Told:
    """Prints what another process tells."""

    def __init__(self) -> None:
        """Begin without a bar."""
        self._progress: Progress | None = None

    def hear(self, what: str, values: list[Any]) -> None:
        """Do what was told."""
        if what == "progress":
            self._progress = Progress(*values)
        elif what in ("at", "close") and self._progress:
            getattr(self._progress, what)(*values)
        elif what in ("say", "detail", "warn"):
            {"say": say, "detail": detail, "warn": warn}[what](*values)

    def close(self) -> None:
        """Take a bar away that is still there."""
        if self._progress:
            self._progress.close()


def say(line: str) -> None:
    """Print a line and log it."""
    if _told:
        _told("say", [line])
        return
    print(f"{_label}{line}", flush=True)
    _log.info(line)


def detail(line: str) -> None:
    """Print a line that is too much where several jobs print, and log it."""
    if _told:
        _told("detail", [line])
        return
    if not _label:
        print(line, flush=True)
    _log.info(line)


def warn(line: str) -> None:
    """Print a warning to the error stream and log it."""
    if _told:
        _told("warn", [line])
        return
    print(f"{_label}warning: {line}", file=sys.stderr, flush=True)
    _log.warning(line)


def fail(line: str) -> None:
    """Print an error to the error stream and log it."""
    print(f"{_label}error: {line}", file=sys.stderr, flush=True)
    _log.error(line)


def show(title: str, rows: Mapping[str, Any]) -> None:
    """Print labels and values under a title."""
    grid(title, ("", ""), [(label, value) for label, value in rows.items()], heads=False)


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, heads: bool = True) -> None:
    """Print a table; cells are shortened only where the terminal is too narrow."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if heads else box.SIMPLE, show_header=heads)
    for column in columns:
        table.add_column(column, overflow="fold")
    rows = [[number(cell) for cell in row] for row in rows]
    for row in rows:
        table.add_row(*row)
    out = Console(width=width(), highlight=False, markup=False, emoji=False)
    out.print(Text(title, style="table.title"))  # above the table, where it may be wider than that
    out.print(table)
    _log.info("%s: %s", title, rows)


def width() -> int:
    """Characters of a line that a table may fill: those of the terminal, 160 elsewhere."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else _ELSEWHERE


def text(line: str) -> None:
    r"""Print lines with rich's markup (`[green]…[/green]`, `\[` for a bracket); colours appear on a terminal only."""
    from rich.console import Console
    from rich.text import Text

    Console(width=width(), highlight=False, soft_wrap=True, emoji=False).print(line)
    _log.info(Text.from_markup(line).plain)


def number(value: Any) -> str:
    """A value as a person reads it: floats with four significant digits, lists joined."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 9999.5 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(number(each) for each in value)
    return "-" if value is None else str(value)


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds(count: float) -> str:
    """A duration as a person reads it, in its two largest units."""
    if count < 99.5:
        return f"{count:.1f} s" if count < 9.95 else f"{count:.0f} s"
    minutes, rest = divmod(round(count), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class Reading:
    """Progress through a file whose rows nobody has counted: how many are read, at what rate, and the time left.

    The share comes from the bytes read. What is done within a second shows nothing.
    """

    def __init__(self, what: str, every: float = 10.0) -> None:
        """Begin; elsewhere than on a terminal a line is printed at most every `every` seconds."""
        self._what, self._every = what, every
        self._begun = self._last = time.monotonic()
        self._share = 0.0
        self._bar: Any = None

    def share(self, share: float) -> None:
        """Keep how much of the file is read, from 0 to 1."""
        self._share = share

    def rows(self, done: int) -> None:
        """Show how many rows are read."""
        now = time.monotonic()
        passed = now - self._begun
        if _told or passed < 1.0:
            return
        rate = f"{done:,} rows  {done / passed:,.0f} rows/s"
        left = f"{passed * (1 - self._share) / self._share:.0f} s left" if self._share else ""
        if sys.stderr.isatty():
            self._bar = self._bar or _bar(self._what, 1.0)
            self._bar.update(self._bar.task_ids[0], completed=self._share, note=f"{rate}  {left}")
        elif now - self._last >= self._every:
            self._last = now
            say(f"{self._what}: {self._share:.0%}  {rate}  {left}".rstrip())

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()


class Progress:
    """A bar with rate and time left on a terminal, plain lines elsewhere."""

    def __init__(self, what: str, total: int, start: int = 0, every: float = 10.0) -> None:
        """Begin at `start` of `total`; elsewhere than on a terminal a line is printed at most every `every` seconds."""
        self._what, self._total, self._start, self._every = what, total, start, every
        self._begun = self._last = time.monotonic()
        self._bar: Any = None
        if _told:
            _told("progress", [what, total, start, every])
        elif sys.stderr.isatty():
            self._bar = _bar(what, total, start)

    def at(self, done: int, note: str = "") -> None:
        """Show that `done` of the total are done."""
        if _told:
            _told("at", [done, note])
            return
        now = time.monotonic()
        rate = (done - self._start) / max(now - self._begun, 1e-9)
        left = (self._total - done) / rate if rate else 0.0
        shown = f"{done}/{self._total}  {rate:.2f}/s  {left:.0f} s left  {note}".rstrip()
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, note=shown)
        elif now - self._last >= self._every or done == self._total:
            self._last = now
            say(f"{self._what} {shown}")

    def close(self) -> None:
        """Take the bar away."""
        if _told:
            _told("close", [])
        if self._bar:
            self._bar.stop()


def _bar(what: str, total: float, start: int = 0) -> Any:
    """A bar of one task on the error stream, which vanishes in the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    bar.add_task(what, total=total, completed=start, note="")
    return bar
