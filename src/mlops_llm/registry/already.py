"""A version that is the champion already: nothing is decided or moved again, so that what was cut off can go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_llm.models.ref import Place
from mlops_llm.record import Result, Run
from mlops_llm.registry.hook import Changed, Hook
from mlops_llm.registry.recording import FORCED, LONGEST, PROMOTED
from mlops_llm.tracking import champions, ledger, registered
from mlops_llm.tracking.champions import Move
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store

CHAMPION = "champion"
"""The verdict: it was the champion before."""
_EVENTS = {champions.PROMOTE: PROMOTED, champions.FORCE: FORCED}


def is_held(version: VersionRow, champion: VersionRow | None) -> bool:
    """Whether a version is the champion."""
    return champion is not None and champion.version == version.version


def held(store: Store, version: VersionRow, run: Run, place: Place | None) -> Result:
    """Say that a version is the champion, since when and why.

    Args:
        store: the record.
        version: the champion.
        run: of the command; the version's own record stays as it is.
        place: the model that was named; None where the version was.
    """
    move = _made_by(store, version)
    since = f"version {version.version} is the champion already"
    since += f", since {move.time} by {move.run}" if move else ""
    twin = place is not None and version.checkpoint is not None and place.checkpoint != version.checkpoint.id
    also = [f"{place.ref} has the same weights"] if place and twin else []
    reasons = [since, *also, *([move.reason] if move and move.reason else [])]
    told, why = f"{version.model}/{version.version}", "; ".join(reasons)[:LONGEST]
    run.tags({"registered": told, "decision": CHAMPION, "decision.why": why})
    table = {
        "version": f"{version.ref} ({version.checkpoint.name if version.checkpoint else '?'})",
        "decision": "none, it is the champion already",
        **{f"because {number}" if number > 1 else "because": each for number, each in enumerate(reasons, 1)},
        "champion": f"version {version.version}",
    }
    values: dict[str, Any] = {
        "verdict": CHAMPION,
        "ref": version.ref,
        "version": version.version,
        "champion": version.version,
        "reasons": reasons,
    }
    return Result(f"promote {version.model}: version {version.version} is the champion already", table, values)


def untold(store: Store, version: VersionRow, hooks: Mapping[str, Hook]) -> tuple[Changed | None, dict[str, Hook]]:
    """The change that made a version the champion, and the hooks that its run did not tell: it may have been killed before."""
    move = _made_by(store, version)
    if move is None:
        return None, {}
    before = {each.id: each for each in ledger.named(store, move.run)}.get(move.run_id)
    told = {name for name in hooks if before and before.tags.get(f"hook.{name}") == "told"}
    event = _EVENTS.get(move.kind, move.kind)
    changed = Changed(version.model, version.version, move.before, event, move.reason)
    return changed, {name: each for name, each in hooks.items() if name not in told}


def _made_by(store: Store, version: VersionRow) -> Move | None:
    """The last move that made a version the champion; None where somebody set the alias by hand."""
    moves = champions.history(registered.model(store, version.model).tags)
    return next((each for each in reversed(moves) if each.version == version.version), None)
