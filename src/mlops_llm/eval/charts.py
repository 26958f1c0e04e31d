"""Numbers as bars that stand in a page: SVG without a script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mlops_llm.console import number
from mlops_llm.eval.markup import Html, tag

MOST_WHOLE = 12
"""Whole numbers that have a bar each; more of them are put together."""
BINS = 10
_WIDTH, _HEIGHT, _LETTER = 260, 120, 6.2


@dataclass(frozen=True)
class Bin:
    """How many values are in a range."""

    label: str
    """The number, or where the range begins."""
    count: int


def bins(values: Sequence[float], most: float | None = None) -> list[Bin]:
    """Count values: whole numbers one by one, ratings in steps of a half, others in ten ranges of one width.

    Args:
        values: what is finite of them is counted.
        most: the largest value that there is, so that scores of one kind have the same ranges.
    """
    values = [each for each in values if math.isfinite(each)]
    if not values:
        return []
    low, high = min(values), max(values)
    if most is not None and low >= 0 and high <= most:
        low, high = (1.0 if low >= 1 and 1 < most < MOST_WHOLE else 0.0), float(most)
    whole = all(each == int(each) for each in values)
    if whole and high - low < MOST_WHOLE:
        counted = Counter(map(int, values))
        return [Bin(str(each), counted[each]) for each in range(int(low), int(high) + 1)]
    width = 0.5 if low == 1 and high == most else (high - low) / BINS
    if whole and most is None:  # ranges that hold one whole number more than others would show teeth that are not there
        width = float(math.ceil((high - low + 1) / BINS))
        high = low + width * math.ceil((high - low + 1) / width)
    if not 0 < width < math.inf:
        return [Bin(number(low), len(values))]
    counts = [0] * round((high - low) / width)
    for each in values:
        counts[min(len(counts) - 1, int((each - low) / width))] += 1
    return [Bin(number(low + width * place), count) for place, count in enumerate(counts)]


def bar(value: float, most: float, interval: tuple[float, float] | None = None) -> Html:
    """A value between 0 and the largest one that there is, with a whisker for its interval."""

    def across(number: float) -> float:
        return round(200 * min(1.0, max(0.0, number / most)), 1)

    parts = [
        tag("rect", x=0, y=3, width=200, height=12, rx=2, class_="track"),
        tag("rect", x=0, y=3, width=across(value), height=12, rx=2, class_="fill"),
    ]
    if interval:
        low, high = across(interval[0]), across(interval[1])
        parts.append(tag("path", d=f"M{low} 9H{high}M{low} 5v8M{high} 5v8", class_="whisker"))
    return tag("svg", *parts, viewBox="0 0 200 18", width=200, height=18, role="img", aria_label=f"{number(value)} of {most:g}")


def histogram(values: Sequence[float], most: float | None = None) -> Html:
    """How often values occur."""
    found = bins(values, most)
    if not found:
        return tag("svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}")
    step, top = _WIDTH / len(found), max(each.count for each in found)
    # Labels are as wide as their text: where they would touch, every second or third is left out.
    every = math.ceil((max(len(each.label) for each in found) * _LETTER + 6) / step)
    parts = []
    for place, each in enumerate(found):
        left, tall = place * step, 80 * each.count / top
        middle = round(left + step / 2, 1)
        place_of = {"x": round(left + step * 0.1, 1), "y": round(100 - tall, 1)}
        parts.append(tag("rect", **place_of, width=round(step * 0.8, 1), height=round(tall, 1), rx=1, class_="fill"))
        if each.count:
            parts.append(tag("text", each.count, x=middle, y=round(96 - tall, 1), text_anchor="middle", class_="count"))
        if place % every == 0:
            half = len(each.label) * _LETTER / 2
            inside = round(max(half, min(middle, _WIDTH - half)), 1)
            parts.append(tag("text", each.label, x=inside, y=114, text_anchor="middle"))
    parts.append(tag("path", d=f"M0 100.5H{_WIDTH}", class_="axis"))
    return tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label="histogram")
