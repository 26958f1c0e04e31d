"""What a stage will take, by what stages like it took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mlops_llm import console
from mlops_llm.tracking import nested
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Expected:
    """Time and disk of a stage; None where no such stage was done before."""

    seconds: float | None = None
    bytes: float | None = None
    near: bool = False
    """Told by stages that did the same with other settings."""

    @property
    def time(self) -> str:
        """For a person."""
        return UNKNOWN if self.seconds is None else f"{'about ' if self.near else ''}{console.seconds(self.seconds)}"

    @property
    def disk(self) -> str:
        """For a person."""
        return UNKNOWN if self.bytes is None else f"{'about ' if self.near else ''}{console.size(self.bytes)}"


def expected(store: Store | None, which: str, operation: str) -> Expected:
    """The median of finished stages with the same settings, whatever models and rows they had, else of those that did the same.

    Args:
        store: the record, where there is one.
        which: digest of the settings.
        operation: what the stage does.
    """
    if store is None:
        return Expected()
    rows = nested.measured(store, nested.LIKE, which)
    return of_rows(rows) if rows else of_rows(nested.measured(store, nested.OPERATION, operation), near=True)


def of_rows(rows: Sequence[RunRow], *, near: bool = False) -> Expected:
    """The medians of runs of stages."""
    if not rows:
        return Expected()
    sizes = [float(each.tags[nested.BYTES]) for each in rows if nested.BYTES in each.tags]
    seconds = statistics.median(float(each.tags[nested.SECONDS]) for each in rows)
    return Expected(seconds, statistics.median(sizes) if sizes else None, near)


def left(times: Sequence[float | None]) -> str:
    """How long stages take together that are to be done, for a person; empty where nothing is known.

    Args:
        times: seconds of each, 0 of one that is left out whatever comes, None where that is not known.
    """
    known = [each for each in times if each is not None]
    if not any(known):
        return ""
    more = "" if len(known) == len(times) else f" and {len(times) - len(known)} of unknown time"
    return f"about {console.seconds(sum(known))}{more}"
