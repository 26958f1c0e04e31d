"""A sweep as a table and as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from mlops_llm.eval import shown
from mlops_llm.record import Grid
from mlops_llm.surgery.sweep.asking import Point
from mlops_llm.surgery.sweep.points import RATIO, Space
from mlops_llm.surgery.sweep.verdict import Verdict

_EDGES = 3
"""Characters between the texts of two columns."""


def table(points: Sequence[Point], space: Space, refs: Sequence[str], found: Verdict, width: int) -> Grid:
    """All points by what is varied: shares of the models in percent, score with its interval, and which one is best.

    Args:
        points: all.
        space: what is varied.
        refs: of the models.
        found: which is best.
        width: characters of a line; where the models' names would take more, they are letters, which the title tells.
    """
    is_ratio, score = space.over == RATIO, points[0].score
    varied = [space.over] if space.models == 2 or not is_ratio else []
    shares = [f"{ref} %" for ref in refs] if is_ratio else []
    rows = []
    for each in sorted(points, key=_place):
        weights = _weights(each, space)
        first = [each.name if each.at is None else f"{each.at[0]:g}"] if varied else []
        rows.append(
            [
                *first,
                *([f"{100 * weight:.4g}" for weight in weights] if is_ratio and weights else ["-"] * len(shares)),
                shown.value(each.score),
                _between(each),
                found.mark if each is found.best else "",
            ]
        )
    direction = "higher" if score.higher_is_better else "lower"
    title = f"{space.method} over {space.over}: {score.name} ({direction} is better)"
    heads = [*varied, *shares, score.name, "95 %", ""]
    letters = ascii_uppercase[: len(refs)] if is_ratio else ""
    if len(letters) == len(shares) and 1 + sum(_EDGES + max(map(len, each)) for each in zip(heads, *rows, strict=True)) > width:
        title += "".join(f"; {letter} = {ref}" for letter, ref in zip(letters, refs, strict=False))
        heads[len(varied) : len(varied) + len(letters)] = [f"{letter} %" for letter in letters]
    return Grid(title, heads, rows)


def columns(points: Sequence[Point], space: Space, refs: Sequence[str]) -> dict[str, list[Any]]:
    """The same as numbers, for the record."""
    ordered = sorted(points, key=_place)
    made: dict[str, list[Any]] = {"point": [each.name for each in ordered]}
    for place, ref in enumerate(refs):
        weights = [_weights(each, space) for each in ordered]
        made[f"share of {ref}"] = [each[place] if each else None for each in weights]
    if space.over != RATIO:
        made[space.over] = [each.at[0] if each.at else None for each in ordered]
    made["score"] = [each.score.value for each in ordered]
    made["low"] = [each.score.interval[0] if each.score.interval else None for each in ordered]
    made["high"] = [each.score.interval[1] if each.score.interval else None for each in ordered]
    made["evaluation"] = [each.number for each in ordered]
    return made


def _weights(point: Point, space: Space) -> list[float] | None:
    if point.at is not None:
        return space.weights(point.at)
    return [float(each == point.parent) for each in range(space.models)] if space.over == RATIO else None


def _place(point: Point) -> tuple[bool, tuple[float, ...]]:
    return point.at is None, point.at or (float(point.number),)


def _between(point: Point) -> str:
    if point.score.interval is None:
        return ""
    low, high = (shown.value(point.score, each) for each in point.score.interval)
    return f"{low} to {high}"


def curve(points: Sequence[Point], space: Space, found: Verdict) -> Any:
    """The score with its 95 % interval by what is varied; of three and more models by the shares of the first two."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    score = points[0].score
    placed = sorted((each for each in points if each.at is not None), key=_place)
    if any(len(each.at or ()) > 1 for each in placed):
        _shares(figure, axes, placed, found, score.name)
    else:
        _line(axes, placed, points, found)
        axes.set_xlabel("share of the first model" if space.over == RATIO else space.over)
        axes.set_ylabel(score.name)
        axes.legend(fontsize=8)
    axes.set_title(f"{space.method} over {space.over}")
    axes.grid(alpha=0.3)
    return figure


def _line(axes: Any, placed: Sequence[Point], points: Sequence[Point], found: Verdict) -> None:
    at = [each.at[0] for each in placed if each.at]
    axes.plot(at, [each.score.value for each in placed], "o-", color="tab:blue", markersize=4, label="merge")
    spans = [each.score.interval or (each.score.value, each.score.value) for each in placed]
    axes.fill_between(at, [low for low, _ in spans], [high for _, high in spans], color="tab:blue", alpha=0.15, label="95 %")
    parent = found.parent
    axes.axhline(parent.score.value, color="grey", linestyle=":", linewidth=1, label="the better parent")
    if found.best.at is not None:
        axes.plot(found.best.at[0], found.best.score.value, "*", color="crimson", markersize=14, label=found.mark)


def _shares(figure: Any, axes: Any, placed: Sequence[Point], found: Verdict, score: str) -> None:
    first, second = ([each.at[place] for each in placed if each.at] for place in (0, 1))
    dots = axes.scatter(first, second, c=[each.score.value for each in placed], s=60)
    figure.colorbar(dots, label=score)
    if found.best.at is not None:
        axes.plot(*found.best.at[:2], "*", color="crimson", markersize=16, label=found.mark)
        axes.legend(fontsize=8)
    axes.set_xlabel("share of the first model")
    axes.set_ylabel("share of the second model")
