"""Weights that no run of ours made, in the record: they stay where they are and are known by their digest."""

from __future__ import annotations

import re
import socket
from typing import Any

from mlops_llm.record import Checkpoint
from mlops_llm.tracking.deliver import CHECKPOINT
from mlops_llm.tracking.store import Store


def entered(store: Store, experiment: str, checkpoint: Checkpoint) -> str:
    """LoggedModel id of weights from elsewhere; entered as a reference where the experiment does not know name and digest.

    Args:
        store: the record.
        experiment: id of the project.
        checkpoint: name, folder and tags, among them `digest.weights`.
    """
    name = re.sub(r"[/:.%\"'\s]+", "_", checkpoint.name).strip("_") or "model"
    client, weights = store.client, checkpoint.tags.get("digest.weights", "")
    known = _known(store, experiment, name, weights)
    if known is not None:
        if not str(known.status).endswith("READY"):  # its process was killed in between
            client.finalize_logged_model(known.model_id, "READY")
        return str(known.model_id)
    model = client.create_logged_model(
        experiment,
        name,
        tags={
            **checkpoint.tags,
            "checkpoint.storage": "reference",
            "checkpoint.uri": checkpoint.folder.absolute().as_uri(),
            "checkpoint.host": socket.gethostname(),
            "checkpoint.origin": checkpoint.name,
        },
        params={"step": str(checkpoint.step)},
        model_type=CHECKPOINT,
    )
    client.finalize_logged_model(model.model_id, "READY")
    first = _known(store, experiment, name, weights)  # another process may have entered it at the same moment
    return str((first or model).model_id)


def _known(store: Store, experiment: str, name: str, digest: str) -> Any:
    query = f"name = '{name}' AND tags.`digest.weights` = '{digest}' AND tags.`checkpoint.storage` = 'reference'"
    oldest = [{"field_name": "creation_timestamp"}]
    found = store.client.search_logged_models([experiment], filter_string=query, max_results=1, order_by=oldest)
    return found[0] if found else None
