"""Where people find a server: the address that their accounts get, which need not be the administrator's own."""

from __future__ import annotations

import re

from parts import ServerError, listed

VARIABLE = "MLOPS_LLM_SERVER_URL"
"""The variable of `admin.env` that says it to `users.py`."""
# What a shell may read out of a file as it stands; a password has no place in it.
_FORM = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/?")


def of_people(url: str, names: str, own: str) -> str:
    """The address that people use.

    Args:
        url: what the administrator says it is; empty is the first name by https, or `own` where there is none.
        names: those by which the server may be called, with commas.
        own: where it listens.

    Raises:
        ServerError: that is no address.
    """
    name = next((each for each in listed(names) if "*" not in each), "")
    if not url and not name:
        return own
    found = url or f"https://{name}"
    if not _FORM.fullmatch(found):
        raise ServerError(
            f"{'--url' if url else '--names'} gives people no address; say --url https://NAME or http://NAME:PORT"
        )
    return found.rstrip("/")
