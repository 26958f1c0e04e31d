"""Pictures of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Curve = Mapping[int, float]
"""Step -> value."""


def course(
    title: str,
    unit: str,
    train: Curve,
    held_out: Curve,
    averaged: Curve,
    best: tuple[int, float] | None,
    overfit_step: int | None = None,
) -> Any:
    """A number of the training rows and of the held-out ones by step, also of averaged weights.

    Marked are the best checkpoint (its step and held-out number) and the step from which the training is overfit.
    """
    figure, axes = _axes(title, unit)
    axes.plot(list(train), list(train.values()), label="training", linewidth=1)
    if held_out:
        axes.plot(list(held_out), list(held_out.values()), "o-", label="held out", markersize=4)
    if averaged:
        axes.plot(list(averaged), list(averaged.values()), "s--", label="held out, averaged weights", markersize=3, linewidth=1)
    if best is not None:
        axes.axvline(best[0], color="grey", linestyle=":", linewidth=1)
        axes.plot(*zip(best, strict=True), "*", color="crimson", markersize=14, label=f"best: step {best[0]}")
    if overfit_step is not None:
        axes.axvline(overfit_step, color="darkorange", linestyle="--", linewidth=1, label=f"overfit from step {overfit_step}")
    axes.legend()
    return figure


def line(title: str, unit: str, values: Curve) -> Any:
    """One curve by step."""
    figure, axes = _axes(title, unit)
    axes.plot(list(values), list(values.values()), linewidth=1)
    return figure


def _axes(title: str, unit: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    return figure, axes
