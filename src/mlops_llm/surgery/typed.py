"""Values and settings as a person types them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][\w./:@+-]*", re.ASCII)
"""Texts that need no quotes in a setting."""
_WORDS = ("true", "false", "null", "nan", "inf")
_BARE = re.compile(r"[\w./:@+{} -]+")
"""Refs that a list takes as they are; `{ref}` stands for one."""
_SHELL = re.compile(r"[\w./:@+={},\[\]-]+")
"""Settings that a shell takes as they are."""


def word(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{word(str(name))}:{word(each)}" for name, each in value.items()) + "}"
    if not isinstance(value, str):
        return str(value)
    plainly = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plainly else "'" + value.replace("'", "\\'") + "'"


def setting(name: str, value: str | Sequence[str]) -> str:
    """A ref or several as a setting of a command to be typed, quoted only where the shell or a list needs it."""
    said = value if isinstance(value, str) else f"[{','.join(each if _BARE.fullmatch(each) else word(each) for each in value)}]"
    whole = f"{name}={said}"
    return whole if _SHELL.fullmatch(whole) else shlex.quote(whole)
