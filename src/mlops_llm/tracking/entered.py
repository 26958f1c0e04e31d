"""What became of an archive's runs and checkpoints in this record, and what of theirs is here already."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.tracking import checkpoints, ledger
from mlops_llm.tracking.ledger import ORIGIN
from mlops_llm.tracking.portable import PortableRun
from mlops_llm.tracking.store import Store

PARENT = "mlflow.parentRunId"
_ID = re.compile(r"(?<![0-9a-f])(?:m-)?[0-9a-f]{32}(?![0-9a-f])")


@dataclass
class Entered:
    """What became of what."""

    runs: dict[str, str] = field(default_factory=dict)
    """Id in the archive -> id here."""
    checkpoints: dict[str, str] = field(default_factory=dict)
    new_runs: list[str] = field(default_factory=list)
    new_checkpoints: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    """Name in the archive -> name here."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Id of what the archive names and has not -> id here, where it came before."""
    missing: dict[str, str] = field(default_factory=dict)
    """Id of what the archive names and has not, and this record neither -> the run that names it and what for."""
    versions: dict[str, str] = field(default_factory=dict)
    """NAME/VERSION in the archive -> NAME/VERSION here."""
    kept_aliases: dict[str, str] = field(default_factory=dict)
    """NAME@ALIAS that points elsewhere here -> where the archive has it."""

    def here(self, text: str) -> str:
        """A text with the ids of this record in the place of those of the archive."""
        known = self.elsewhere | self.runs | self.checkpoints
        return _ID.sub(lambda found: known.get(found[0], found[0]), text)


def known_run(store: Store, origin: str) -> Any:
    """MLflow's run that was first made with an id, be it here; None where there is none."""
    rows = ledger.tagged(store, {ORIGIN: origin})
    if rows:
        return store.client.get_run(rows[-1].id)
    try:
        found = store.client.get_run(ledger.find_run(store, origin).id)
    except UserError:
        return None
    return found if found.info.lifecycle_stage == "active" else None


def known_checkpoint(store: Store, origin: str, run: str = "") -> Any:
    """MLflow's LoggedModel that was first made with an id; None where there is none.

    Args:
        store: the record.
        origin: the id.
        run: id of the run that must have made it: of one that was imported, deleted and imported again there are two.
    """
    found = checkpoints.by_origin(store, origin, run)
    try:
        model = store.client.get_logged_model(found.id if found else origin)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return model if not run or model.source_run_id == run else None


def find_named(store: Store, told: PortableRun, brought: Container[str], entered: Entered) -> None:
    """Find here, under the id that it has here, what a run names and the archive has not.

    Args:
        store: the record.
        told: the run.
        brought: ids of what the archive has.
        entered: what was entered so far.
    """
    named = {told.tags.get(PARENT, ""): "its parent", told.tags.get("base.run", ""): "the run that made its base"}
    named |= dict.fromkeys(told.uses, "a model that it read") | {told.tags.get("base.checkpoint", ""): "its base"}
    for each, role in named.items():
        if not _ID.fullmatch(each) or each in brought or each in entered.elsewhere:
            continue
        if each.startswith("m-"):
            model = known_checkpoint(store, each)
            here = str(model.model_id) if model is not None else ""
        else:
            run = known_run(store, each)
            here = str(run.info.run_id) if run is not None else ""
        if here:
            entered.elsewhere[each] = here
        else:
            entered.missing.setdefault(each, f"{told.name}: {role}")
