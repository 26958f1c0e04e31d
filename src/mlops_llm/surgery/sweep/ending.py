"""What becomes of a sweep that proves no gain: what is written all the same, what is not, and how one gets it."""

from __future__ import annotations

from dataclasses import replace

from mlops_llm import console
from mlops_llm.record import Result
from mlops_llm.surgery import recipe
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.planning import Planned
from mlops_llm.surgery.sweep.verdict import Verdict
from mlops_llm.surgery.typed import setting

_NOTHING = {"output": None, "registered": None}


def asked(request: Surgery) -> bool:
    """Whether the best merge is wanted whatever it is: a folder or a name was given for it."""
    return bool(request.output or request.name)


def unwritten(ended: Result, request: Surgery, ref: str) -> Result:
    """The end of a sweep that a parent has won: it is there already.

    Args:
        ended: the end so far.
        request: the command.
        ref: of the parent.
    """
    ignored = _ignored(request)
    said = f"{ref} is the best as it is" + (f", so nothing was done for {', '.join(ignored)}" if ignored else "")
    if ignored:
        console.warn(said)
    table = {**ended.table, "written": f"nothing: {said}", "model": ref}
    if request.name:
        again = f"python -m mlops_llm.surgery op=average {setting('models', [ref])} {setting('name', request.name)}"
        table |= {"registered": "nothing", "to register it": f"{again} (the same weights, copied)"}
    return replace(ended, table=table, values={**ended.values, **_NOTHING, "ref": ref, "ignored": ignored})


def _ignored(request: Surgery) -> list[str]:
    wanted = {"output=": request.output, "name=": request.name, "then.evaluate": request.then.evaluate}
    return [name for name, value in wanted.items() if value]


def undecided(ended: Result, request: Surgery, found: Verdict) -> Result:
    """The end of a sweep whose best merge may be no better than the parents, and for which nobody gave a folder or a name."""
    said = f"nothing: {found.best.name} is not known to be better than {found.parent.name}"
    table = {**ended.table, "written": said, "to write it": "the same command with output=DIR; name=NAME registers it, too"}
    return replace(ended, table=table, values={**ended.values, **_NOTHING, "ref": None, "ignored": _ignored(request)})


def unproven(made: Result, planned: Planned, found: Verdict) -> Result:
    """A merge that was written because a folder or a name was given for it, though it may be no better than the parents.

    Args:
        made: what the merge ended with.
        planned: the merge.
        found: what the sweep came to.
    """
    said = f"{planned.output}, as it was asked for; {found.best.name} is not known to be better than {found.parent.name}"
    table = {**made.table, "written": said}
    if made.best is None:
        return replace(made, table=table)
    again = recipe.command(recipe.recipe(planned, ""), "DIR")
    table |= {
        "registered": f"{made.best.model}, a version without an alias",
        "to move the alias": f"{again} name={made.best.model}",
    }
    return replace(made, table=table, best=replace(made.best, alias=""))
