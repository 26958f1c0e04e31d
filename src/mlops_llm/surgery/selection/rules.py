"""Rules that choose a checkpoint: rows in, choice and reasons out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from mlops_llm.eval.significance import LEVEL

LOSS, HELD_OUT = "train/loss", "eval/loss"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint as the rules see it."""

    name: str
    step: int
    values: Mapping[str, float] = field(default_factory=dict)
    """Name of a number -> its value; what is not known is not there."""
    overfit: str = ""
    """Why the training counts as overfit there; empty where it does not."""
    gone: str = ""
    """Why it cannot be taken whatever its numbers are; empty where it can."""


class Order(Enum):
    """How candidates are ordered."""

    ranked = "ranked"
    """By the sum of their ranks in all wanted numbers (Borda 1784); of equals the better one in the first, then the earlier."""
    latest = "latest"
    """The newest."""
    earliest = "earliest"
    """The first that is not significantly worse than the best in the first wanted number."""


@dataclass(frozen=True)
class Wish:
    """A rule."""

    order: Order
    by: tuple[str, ...] | None = None
    """Numbers that count; None takes those that a person names."""


class Rule(Enum):
    """Rules by name."""

    best = "best"
    """Best by op.by; of several numbers the least sum of ranks."""
    lowest_loss = "lowest_loss"
    """Lowest training loss."""
    best_validation = "best_validation"
    """Lowest loss on held-out rows."""
    latest = "latest"
    """The newest."""
    earliest = "earliest"
    """The earliest that a paired test cannot tell from the best by the first of op.by."""


RULES: Mapping[Rule, Wish] = {
    Rule.best: Wish(Order.ranked),
    Rule.lowest_loss: Wish(Order.ranked, (LOSS,)),
    Rule.best_validation: Wish(Order.ranked, (HELD_OUT,)),
    Rule.latest: Wish(Order.latest, ()),
    Rule.earliest: Wish(Order.earliest),
}


class Seen(NamedTuple):
    """What a paired test sees of two candidates."""

    p: float
    """Of their difference."""
    samples: int
    """That both were asked."""
    least: float | None
    """The smallest difference that so many samples find in four of five cases; None where no two of them differ."""


Test = Callable[[Candidate, Candidate, str], Seen | None]
"""The difference of two candidates in a number, by their samples; None where these are not known."""


@dataclass(frozen=True)
class Choice:
    """What was chosen."""

    chosen: Candidate | None
    """None where nothing can be."""
    reasons: tuple[str, ...]
    left_out: Mapping[str, str]
    """Candidate -> why it was not considered."""
    unjudged: tuple[str, ...] = ()
    """Those of them that lack a wanted number, so that nobody knows whether they are better."""


def choose(
    candidates: Sequence[Candidate],
    wish: Wish,
    by: Sequence[str],
    higher: Callable[[str], bool],
    *,
    avoid_overfit: bool,
    test: Test = lambda first, second, name: None,
) -> Choice:
    """Choose a checkpoint.

    Args:
        candidates: in any order.
        wish: the rule.
        by: the numbers that a person names.
        higher: whether larger values of a number are better.
        avoid_overfit: leave overfit ones out, as long as any other is there.
        test: tells whether two candidates differ by more than chance.
    """
    by = by if wish.by is None else wish.by
    left_out, unjudged = {each.name: each.gone for each in candidates if each.gone}, list[str]()
    for each in candidates:
        lacks = next((name for name in by if not math.isfinite(each.values.get(name, math.nan))), None)
        if lacks and each.name not in left_out:
            left_out[each.name] = f"has no {lacks}"
            unjudged.append(each.name)
    left = [each for each in candidates if each.name not in left_out]
    reasons = list[str]()
    overfit = [each for each in left if each.overfit]
    if avoid_overfit and overfit:
        if len(overfit) < len(left):
            left_out |= {each.name: "is overfit" for each in overfit}
            left = [each for each in left if not each.overfit]
            reasons.append(f"not overfit; left out for that: {', '.join(each.name for each in overfit)}")
        else:
            reasons.append("every checkpoint is overfit, so none is left out for that")
    if not left:
        return Choice(None, (), left_out, tuple(unjudged))
    chosen, why = _ORDERS[wish.order](left, by, higher, test)
    return Choice(chosen, (*why, *reasons), left_out, tuple(unjudged))


def ranks(candidates: Sequence[Candidate], name: str, *, higher: bool) -> dict[str, int]:
    """Candidate -> its rank in a number, from 1; equal ones have the same."""
    sign = -1.0 if higher else 1.0
    values = {each.name: sign * each.values[name] for each in candidates}
    return {one: 1 + sum(other < value for other in values.values()) for one, value in values.items()}


def _ranked(
    left: Sequence[Candidate], by: Sequence[str], higher: Callable[[str], bool], test: Test
) -> tuple[Candidate, list[str]]:
    places = {name: ranks(left, name, higher=higher(name)) for name in by}
    chosen = min(left, key=lambda each: (sum(places[n][each.name] for n in by), places[by[0]][each.name], each.step, each.name))
    reasons = []
    for name in by:
        best = min(left, key=lambda each: (places[name][each.name], each.step))
        rank = places[name][chosen.name]
        more = "" if rank == 1 else f"; the best is {best.values[name]:.4g} of {best.name}"
        reasons.append(f"rank {rank} of {len(left)} by {name}: {chosen.values[name]:.4g}{more}")
    if len(by) > 1:
        reasons.insert(0, f"least sum of ranks in {', '.join(by)}")
    return chosen, reasons


def _latest(
    left: Sequence[Candidate], by: Sequence[str], higher: Callable[[str], bool], test: Test
) -> tuple[Candidate, list[str]]:
    chosen = max(left, key=lambda each: (each.step, each.name))
    return chosen, [f"the newest of {len(left)}"]


def _earliest(
    left: Sequence[Candidate], by: Sequence[str], higher: Callable[[str], bool], test: Test
) -> tuple[Candidate, list[str]]:
    name = by[0]
    best, _ = _ranked(left, [name], higher, test)
    ordered = sorted(left, key=lambda each: (each.step, each.name))
    earlier, unknown = ordered[: ordered.index(best)], list[str]()
    for each in earlier:
        seen = test(best, each, name)
        if seen is None:
            unknown.append(each.name)
        elif seen.p > LEVEL:
            said = f"{name} {each.values[name]:.4g}, the best is {best.values[name]:.4g} of {best.name}; p = {seen.p:.2g}"
            why = f"the earliest that is not significantly worse than the best ({said} by paired test)"
            return each, [why, _unseen(seen), *_untested(unknown)]
    why = f"the best of {len(left)} by {name} ({best.values[name]:.4g})"
    if len(earlier) > len(unknown):
        which = f"{len(earlier) - len(unknown)} of {len(earlier)} earlier ones are" if unknown else "every earlier one is"
        why += f"; {which} significantly worse"
    return best, [why, *_untested(unknown)]


def _unseen(seen: Seen) -> str:
    """What the test may have missed."""
    if seen.least is None:
        return f"{seen.samples} samples do not say how large a difference they would show"
    return f"differences under {seen.least:.2g} are missed by {seen.samples} samples in one of five cases and more"


def _untested(unknown: Sequence[str]) -> list[str]:
    return [f"unknown, since no samples of both are there: {', '.join(unknown)}"] if unknown else []


_ORDERS = {Order.ranked: _ranked, Order.latest: _latest, Order.earliest: _earliest}
