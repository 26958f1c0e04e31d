"""Texts with places for values: `{prompt}`. All other braces stand for themselves, so that a template may show JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlops_llm.component import near
from mlops_llm.errors import UserError

_PLACE = re.compile(r"\{([^\W\d]\w*)\}")


def check(template: str, allowed: Sequence[str], needed: Sequence[str], where: str) -> None:
    """See that a template has every place that is needed, and none that nothing is known for.

    Raises:
        UserError: it has not; the nearest name is told.
    """
    names = _PLACE.findall(template)
    shown = ", ".join(f"{{{name}}}" for name in allowed)
    for name in names:
        if name not in allowed:
            raise UserError(f"has an unknown placeholder {{{name}}}{near(name, allowed)}", where, f"there are: {shown}")
    for name in needed:
        if name not in names:
            raise UserError(f"has no place for {{{name}}}", where, f"write {{{name}}} where it belongs")


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its values; what a value holds is not looked at again."""
    return _PLACE.sub(lambda found: values[found[1]], template)
