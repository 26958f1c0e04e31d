"""`op=remove`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.data import ref
from mlops_llm.data.config import Data, Work
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run


@component("op", "remove")
@dataclass
class Remove:
    """Take a dataset off the list; its file and all of its versions stay, and op=restore brings it back."""

    records: ClassVar[bool] = True
    yes: bool = False
    """Do not ask."""

    def prepare(self, request: Data) -> Work:
        """Name who trained on it, and ask."""
        from mlops_llm.tracking import datasets
        from mlops_llm.tracking.store import connect

        known = ref.registered(request.wanted())
        if not known.listed:
            raise UserError("was removed from the list before", known.name, "bring it back with op=restore")
        store = connect()
        users = sorted({user for version in known.versions for user in datasets.users(store, version)})
        champions = datasets.champions_on(store, known)
        if not self.yes:
            _ask(known.name, len(known.versions), champions or users)

        def work(run: Run) -> Result:
            datasets.list_again(store, known.name, False)
            table = {
                "removed from the list": known.name,
                "kept": f"{len(known.versions)} versions, and the file",
                "runs that trained on it": ", ".join(users[:10]) or "none",
                "champions that come from it": ", ".join(champions) or "none",
                "to bring it back": f"python -m mlops_llm.data op=restore dataset={known.name}",
            }
            return Result(
                f"{known.name}: removed from the list", table, {"runs": users, "champions": champions, "digests": known.digests}
            )

        return work


def _ask(name: str, versions: int, users: list[str]) -> None:
    if not sys.stdin.isatty():
        raise UserError("asks before it removes", name, "say so: op.yes=true")
    used = f" (used by {', '.join(users[:5])})" if users else ""
    answer = input(f"Take '{name}' with {versions} versions{used} off the list? [y/N] ")
    if answer.strip().lower() not in ("y", "yes", "是"):
        raise UserError("was not confirmed; nothing changed", name)
