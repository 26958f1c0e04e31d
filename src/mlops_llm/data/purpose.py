"""What an evaluation set is for, as its versions say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_llm.data.kinds import Kind
from mlops_llm.errors import UserError

if TYPE_CHECKING:
    from mlops_llm.tracking.datasets import Version

_METHOD = re.compile(r"[a-z]\w*")


@dataclass(frozen=True)
class Purpose:
    """What an evaluation set is for; empty of other datasets."""

    ability: str = ""
    """What it asks for, such as 对话质量."""
    method: tuple[str, ...] = ()
    """How it is scored where nobody says how: `judge`, names of metrics. Whether there are such metrics is not known here."""

    @classmethod
    def of(cls, version: Version | None) -> Purpose:
        """What a version says; nothing where there is none."""
        return cls(version.ability, version.method) if version else cls()


NO_PURPOSE = Purpose()


def given(kind: Kind, ability: str | None, method: Any, before: Version | None = None) -> Purpose:
    """What a user says; what is None stays as a version before says.

    Args:
        kind: of the rows.
        ability: one line.
        method: a name or a list of names.
        before: the dataset's current version.

    Raises:
        UserError: the rows are no evaluation set, or a method is no name.
    """
    said = [name for name, value in (("op.ability", ability), ("op.method", method)) if value]
    if said and kind is not Kind.eval:
        raise UserError(f"is given, but the rows are of kind {kind.name}", said[0], "leave it out, or give kind=eval")
    kept = Purpose.of(before)
    several = [method] if isinstance(method, str) else method
    names = kept.method if several is None else tuple(name for each in several if (name := str(each).strip()))
    for name in names:
        if not _METHOD.fullmatch(name):
            raise UserError(f"'{name}' is no name", "op.method", "write judge, or names of metrics: [bleu,rouge]")
    return Purpose(kept.ability if ability is None else " ".join(ability.split()), names)
