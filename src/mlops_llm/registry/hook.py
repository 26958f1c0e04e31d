"""After the champion has changed, whoever is to know is told, again where that fails, and the run says how it went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Run
from mlops_llm.tracking import champions, ledger, registered
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store
from mlops_llm.tracking.turns import turn

ARTIFACT = "hooks.json"
_LONGEST = 2000


@dataclass(frozen=True)
class Changed:
    """A change of the champion, as others are told it."""

    model: str
    """Registered model."""
    version: int
    """The champion now."""
    before: int | None
    """The champion until then."""
    event: str
    """`promoted`, `forced` or `rollback`."""
    reason: str
    run: str = ""
    """Name of the run that did it."""
    weights: str = ""
    """Digest of the champion's weights."""


@dataclass(frozen=True)
class Answered:
    """How telling one went."""

    passed: bool
    tries: int
    """0 where nothing was told."""
    said: str
    """What it answered, or why it failed."""


class Hook(Protocol):
    """A component of the group `hook`."""

    def check(self) -> None:
        """See that it can be told.

        Raises:
            UserError: it cannot.
        """
        ...

    def tell(self, changed: Changed) -> Answered:
        """Tell it, again where that may help; nothing is raised."""
        ...


def tell(store: Store, hooks: Mapping[str, Hook], changed: Changed, version: VersionRow, run: Run) -> tuple[Grid, str]:
    """Tell all hooks; return what they answered, as a table and in a word.

    Of several changes at once each waits for those who are telling, and where another one came after it, says nothing: what
    hooks hear last is the champion.

    Args:
        store: the record.
        hooks: by name.
        changed: what happened.
        version: the champion.
        run: in which it is recorded.
    """
    weights = version.checkpoint.tags.get("digest.weights", "") if version.checkpoint else ""
    told = Changed(**{**asdict(changed), "run": run.name, "weights": weights})
    try:
        with turn(store, ledger.find_run(store, run.name).id, f"hooks of {changed.model}"):
            last = champions.history(registered.model(store, changed.model).tags)[-1]
            if last.version == changed.version:
                answers = {name: each.tell(told) for name, each in hooks.items()}
            else:
                answers = dict.fromkeys(hooks, Answered(True, 0, f"not told: version {last.version} came after it"))
    except UserError as error:  # others have been telling for minutes
        answers = dict.fromkeys(hooks, Answered(False, 0, str(error)))
    for name, each in answers.items():
        if not each.passed:
            console.warn(f"hook {name} failed ({each.said}); {changed.model} version {changed.version} stays the champion")
    run.artifact(ARTIFACT, json.dumps({name: asdict(each) for name, each in answers.items()}, ensure_ascii=False, indent=1))
    run.tags({f"hook.{name}": _state(each)[:_LONGEST] for name, each in answers.items()})
    rows = [["ok" if each.passed else "FAILED", name, each.tries, each.said] for name, each in answers.items()]
    failed = sum(not each.passed for each in answers.values())
    said = f"{failed} failed; the champion stays" if failed else next(iter(map(_state, answers.values())))
    return Grid("hooks", ["", "hook", "tries", "said"], rows), said


def _state(answered: Answered) -> str:
    if not answered.passed:
        return f"failed: {answered.said}"
    return "told" if answered.tries else answered.said
