"""Spherical interpolation of two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlops_llm.surgery.merge.linear import linear
from mlops_llm.surgery.merge.pieces import pieces

if TYPE_CHECKING:
    from torch import Tensor

PARALLEL = 0.9995
"""Cosine from which two tensors count as parallel, or opposite: the arc between them is then a straight line, or undefined."""


def slerp(
    t: float, first: Tensor, second: Tensor, out: Tensor | None = None, cosine: Callable[[], float | None] | None = None
) -> Tensor:
    """Go along the arc from one tensor to another (Shoemake 1985, "Animating rotation with quaternion curves", section 3.3).

    A tensor counts as one vector; its length is interpolated too, since neither is brought to length 1 first. Where one is
    zero, or both are nearly parallel or opposite, the way is the straight line; mergekit does the same, but scales the other by
    sin(t * 90 degrees) where one is zero.

    Args:
        t: 0 gives the first, 1 the second.
        first: any shape.
        second: of the same shape.
        out: where the result goes, in its own type; None makes a float32 tensor.
        cosine: tells what `between` finds of the two, where that is known already.
    """
    near = cosine() if cosine else between(first, second)
    if near is None or abs(near) > PARALLEL:
        return linear([first, second], [1.0 - t, t], out)
    angle = math.acos(near)
    shares = [math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]
    return linear([first, second], shares, out)


def between(first: Tensor, second: Tensor) -> float | None:
    """Cosine of the angle between two tensors, summed in float64; None where one of them is zero."""
    dot = one = other = 0.0
    for (a, b), _ in pieces([first, second]):
        a, b = a.double(), b.double()
        dot, one, other = dot + float(a @ b), one + float(a @ a), other + float(b @ b)
    if not one or not other:
        return None
    return max(-1.0, min(1.0, dot / math.sqrt(one) / math.sqrt(other)))
