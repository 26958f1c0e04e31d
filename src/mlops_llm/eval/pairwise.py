"""Which of two answers is better, asked in both orders: judges favour a place (Zheng et al. 2023, arXiv:2306.05685, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Choice(Enum):
    """What a judge prefers."""

    first = "first"
    second = "second"
    tie = "tie"


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt."""

    place: int
    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class Match:
    """What a judge says of a pair in both orders."""

    choice: Choice
    """A win only where both orders agree, else a tie."""
    is_flipped: bool
    """The two orders disagree."""
    favours: float
    """How often the answer that was shown first was preferred, 0 to 1; a tie counts half."""


@dataclass(frozen=True)
class Rates:
    """What many pairs come to; the first three are shares of the pairs and sum to 1."""

    win: float
    """Of the first answer."""
    tie: float
    loss: float
    flip: float
    """Share of pairs whose two orders disagree: the position bias."""
    favours: float
    """Share of judgements for the answer that was shown first; 0.5 is no bias."""
    count: int


def match(shown: Choice, exchanged: Choice) -> Match:
    """What two judgements of a pair come to.

    Args:
        shown: with the first answer in the first place.
        exchanged: with the second answer in the first place, as the judge said it: `first` is the second answer there.
    """
    back = {Choice.first: Choice.second, Choice.second: Choice.first, Choice.tie: Choice.tie}[exchanged]
    points = {Choice.first: 1.0, Choice.second: 0.0, Choice.tie: 0.5}
    agreed = shown is back
    return Match(shown if agreed else Choice.tie, not agreed, (points[shown] + points[exchanged]) / 2)


def rates(matches: Sequence[Match]) -> Rates:
    """Shares over pairs, at least one."""
    count = len(matches)
    share = {choice: sum(each.choice is choice for each in matches) / count for choice in Choice}
    flips = sum(each.is_flipped for each in matches) / count
    favours = sum(each.favours for each in matches) / count
    return Rates(share[Choice.first], share[Choice.tie], share[Choice.second], flips, favours, count)
