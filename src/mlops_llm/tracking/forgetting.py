"""Checkpoints whose files are dropped while their numbers stay, and those that may not be."""

from __future__ import annotations

from mlops_llm.tracking import ledger
from mlops_llm.tracking.lineage import ancestors
from mlops_llm.tracking.store import Store, local_path


def forget(store: Store, model: str) -> bool:
    """Remove a checkpoint's files from the record unless the registry names it; its numbers stay.

    It is marked before the first file goes, so that one that was cut off in between is not taken for whole.

    Args:
        store: the record.
        model: its LoggedModel id.

    Returns:
        Whether nothing of the record needs the files any more.
    """
    if ledger.is_registered(store, model):
        return False
    row = ledger.by_model_id(store, model)
    if row.tags.get("checkpoint.storage") == "upload":
        return True  # the server keeps its own copy
    store.client.set_logged_model_tags(model, {"checkpoint.files": ledger.REMOVED})
    place = local_path(row.location)
    for file in place.iterdir() if place and place.is_dir() else ():
        file.unlink()
    return True


def ancestors_of_aliases(store: Store) -> dict[str, str]:
    """LoggedModel id of all that an alias points to or was made of -> which alias that is, for a person."""
    found: dict[str, str] = {}
    for model in store.client.search_registered_models(max_results=1000):
        for alias in sorted(model.aliases):
            row = ledger.by_version(store, model.name, alias, alias=True)
            for each in ancestors(store, row.id):
                said = f"{model.name}@{alias} points to it" if each == row.id else f"{model.name}@{alias} was made of it"
                found.setdefault(each, said)
    return found
