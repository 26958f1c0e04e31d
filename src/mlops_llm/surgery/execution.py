"""Carrying a plan out: write, certify, publish."""

from __future__ import annotations

from mlops_llm.record import Result, Run
from mlops_llm.surgery.operation import Work
from mlops_llm.surgery.planning import Planned, checked


def work(planned: Planned, *, dry_run: bool = False) -> Work | Result:
    """What an operation's `prepare` returns: the plan to be carried out, or only shown.

    Raises:
        UserError: there is no room for the result, or its folder exists.
    """
    plan = checked(planned)
    return shown(plan) if dry_run else lambda run: carry_out(plan, run)


def shown(planned: Planned) -> Result:
    """A plan as a person reads it; nothing is done."""
    return Result(f"plan of {planned.operation}", planned.lines, {}, [planned.grid])


def carry_out(planned: Planned, run: Run | None = None) -> Result:
    """Make the new checkpoint: it appears whole, with recipe and certificate, or not at all.

    Raises:
        UserError: a source is broken, or the disk fills up; nothing is left behind.
    """
    raise NotImplementedError
